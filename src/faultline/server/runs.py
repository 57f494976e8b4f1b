"""Experiments and their runs: check, begin, look, and what people want of them."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from faultline.api import admission
from faultline.api.document import Problem, invalid_document
from faultline.api.experiment import Experiment
from faultline.api.graph_status import Approval
from faultline.api.kinds import kind_of
from faultline.api.model import Model, NodeName
from faultline.api.run import Run
from faultline.engine import stored, wishes
from faultline.engine.signals import read_signal, record_signal
from faultline.errors import InvalidDocument, Unsupported, UsageError
from faultline.server.bodies import Json, Sent, caller, takes
from faultline.server.host import Host
from faultline.server.urgent import urgently
from faultline.stores.model import Filter, Store, Summary


class RunOrder(Model):
    """An experiment that is to be carried out. The document alone will do, where it needs no
    parameters.
    """

    experiment: dict[str, Any] | str
    """The document of the experiment, or the name of one in the store."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Values of its parameters, by name."""
    creator: str = ""
    """Who asks; else who calls."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """What the run chooses at random is drawn from this. Without it, from a number that is drawn
    now."""


class Wanted(BaseModel):
    """Which runs are listed. Each may be left out; of those that may be given several times one
    must fit, of the labels all.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    ended: bool | None = None
    """Only those that have ended, or only those that have not."""
    experiment: list[str] = Field(default_factory=list[str])
    """Of this experiment."""
    creator: list[str] = Field(default_factory=list[str])
    """Asked for by this one."""
    phase: list[str] = Field(default_factory=list[str])
    """In this phase."""
    verdict: list[str] = Field(default_factory=list[str])
    """With this verdict."""
    label: list[Annotated[str, Field(pattern="=")]] = Field(default_factory=list[str])
    """With this label: KEY=VALUE."""
    since: float | None = None
    """Made then or later, seconds since 1970."""
    until: float | None = None
    """Made before then."""
    text: str = ""
    """Found in name, experiment, creator, labels or reason."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    """At most so many."""
    cursor: str = ""
    """Go on behind the answer that gave it as `next`."""

    def filter(self) -> Filter:
        """As the store takes it."""
        pairs = (each.partition("=") for each in self.label)
        return Filter(
            labels={key: value for key, _, value in pairs},
            experiments=tuple(self.experiment), creators=tuple(self.creator),
            phases=tuple(self.phase), verdicts=tuple(self.verdict), since=self.since,
            until=self.until, ended=self.ended, text=self.text,
        )  # fmt: skip


class Summarised(Model):
    """A run as lists show it."""

    name: str
    """Its name."""
    uid: str
    """Unique for ever."""
    version: int
    """Grows with every change."""
    experiment: str
    """The name of its experiment."""
    creator: str
    """Who asked for it."""
    phase: str
    """Where it stands; `ended` at last."""
    verdict: str
    """`held`, `broke`, `not effective`, `not measured` or `error`; empty until it has ended."""
    reason: str
    """The verdict in one sentence."""
    created: float
    """Seconds since 1970, as the next two."""
    started: float | None = None
    """When it began."""
    ended: float | None = None
    """When it ended."""
    labels: dict[str, str]
    """Its labels."""


class RunList(Model):
    """Runs, newest first."""

    runs: list[Summarised]
    """The runs."""
    next: str | None = None
    """The cursor of what follows; absent at the end."""


class Wish(Model):
    """Why somebody wants something."""

    reason: Annotated[str, Field(max_length=2000)] = ""
    """Why."""


class Answer(Model):
    """What somebody says to a node that asks."""

    node: NodeName | None = None
    """The node; may be left out where only one asks."""
    answer: Literal["continue", "refuse"]
    """Whether to go on."""
    by: str = ""
    """Who says it; else who calls."""
    text: str = ""
    """Why."""


class SignalOrder(Model):
    """What people and on-call tools report: that they noticed, that they know why, that it is
    mended. Fields of other tools are read as well: `message`, `summary`; `user`, `author`.
    """

    name: str
    """`found`, `located`, `fixed`, or another name that a probe waits for."""
    at: float | None = None
    """When it was so, seconds since 1970; now, if it is not given."""
    who: str = ""
    """Who reports it."""
    text: str = ""
    """What they say."""
    id: str = ""
    """A number of the sender: the same one counts once."""


class Signalled(Model):
    """To which runs something was reported."""

    runs: list[str]
    """Their names; none is there to be told if it is empty."""


class Check(Model):
    """Whether a document can be carried out."""

    valid: bool
    """Whether nothing is wrong with it."""
    problems: list[dict[str, Any]]
    """What is wrong: the path of each field, and what is expected there."""


def summarised(each: Summary) -> Summarised:
    """A summary of the store as callers see it."""
    data = asdict(each)
    data.pop("kind")
    return Summarised(**data)


def _document(data: dict[str, Any]) -> dict[str, Any]:
    if kind_of(data, "the document") != "Experiment":
        raise InvalidDocument(f"the document is a {data['kind']}, not an Experiment")
    return data


def _resolved(host: Host, order: RunOrder, kept: Experiment | None) -> Experiment:
    """The experiment with its parameters filled in; raises InvalidDocument with every problem."""
    if kept is not None:
        found = stored.with_values(kept, order.parameters)
    else:
        data = _document(cast("dict[str, Any]", order.experiment))
        found = admission.resolve(data, order.parameters, "the experiment")
    if wrong := list(admission.check(found.spec, host.check_fault)):
        raise invalid_document("the experiment", wrong)
    return found


def _order(body: Sent) -> RunOrder:
    data = body.data()
    whole = "kind" in data or "apiVersion" in data
    return RunOrder(experiment=data) if whole else body.read(RunOrder)


def routes(host: Host) -> APIRouter:
    """The routes of experiments and runs."""
    made = APIRouter(tags=["runs"])

    @made.post("/experiments/validate", response_model=Check, openapi_extra=takes(Experiment))
    def validate(body: Sent) -> Json:
        """Everything that is wrong with the document of an experiment. Nothing is carried out."""
        try:
            found = admission.problems(_document(body.data()), host.check_fault)
        except InvalidDocument as error:
            found = [Problem("document", error.message)]
        told = [{"path": one.path, "expected": one.expected} for one in found]
        return Json(Check(valid=not found, problems=told))

    @made.post("/runs", status_code=201, response_model=Run, openapi_extra=takes(RunOrder))
    def create(body: Sent, request: Request) -> Json:
        """Carry out an experiment: its run is written down, and the engine begins it at once."""
        order = _order(body)
        with host.runs() as kept:
            kept.check_halt()
            name = order.experiment
            known = kept.store.get(Experiment, name) if isinstance(name, str) else None
            experiment = _resolved(host, order, known)
            by = order.creator or caller(request)
            run = kept.create(experiment, order.parameters, by, seed=order.seed)
        host.begin(run.metadata.name)
        return Json(run, 201, {"location": f"/v1/runs/{run.metadata.name}"})

    _looks(made, host)
    _wishes(made, host)
    return made


def _looks(made: APIRouter, host: Host) -> None:
    @made.get("/runs", response_model=RunList)
    def list_(wanted: Annotated[Wanted, Query()]) -> Json:
        """Runs, newest first: those to which all of it applies."""
        with host.runs() as kept:
            found = kept.summaries(wanted.filter(), wanted.limit, wanted.cursor)
        follow = found[-1].cursor if len(found) == wanted.limit else None
        return Json(RunList(runs=list(map(summarised, found)), next=follow))

    @made.get("/runs/{name}", response_model=Run)
    def get(name: str) -> Json:
        """One run, with everything that happened and was measured."""
        with host.runs() as kept:
            return Json(kept.get(name))

    @made.get("/runs/{name}/report", response_class=HTMLResponse)
    def report(name: str) -> HTMLResponse:
        """The report of a run as one page of HTML, compared with the run before it."""
        try:
            from faultline.report import render
            from faultline.report.compare import previous
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"the report needs {error.name}",
                hint="install it: pip install 'faultline[experiments]'",
            ) from error
        with host.runs() as kept:
            run = kept.get(name)
            earlier = previous(kept.store, run)
        return HTMLResponse(
            render.html(run, earlier), headers={"x-content-type-options": "nosniff"}
        )


def _aborted(host: Host, name: str, why: str) -> Run:
    with host.runs() as kept:
        return kept.abort(name, why)


def _wishes(made: APIRouter, host: Host) -> None:
    @made.post("/runs/{name}/abort", response_model=Run, openapi_extra=takes(Wish, needed=False))
    async def abort(name: str, body: Sent) -> Json:
        """Undo every fault of a run at once and end it. Its engine sees it within a second."""
        why = body.read(Wish).reason or "aborted over HTTP"
        return Json(await urgently(partial(_aborted, host, name, why)))

    @made.post("/runs/{name}/pause", response_model=Run, openapi_extra=takes(Wish, needed=False))
    def pause(name: str, body: Sent) -> Json:
        """Begin nothing new in a run. What is injected goes on, and ends when it should."""
        why = body.read(Wish).reason or "paused over HTTP"
        with host.runs() as kept:
            return Json(wishes.pause(kept.store, name, why))

    @made.post("/runs/{name}/continue", response_model=Run)
    def proceed(name: str) -> Json:
        """Go on with a paused run."""
        with host.runs() as kept:
            return Json(wishes.proceed(kept.store, name))

    @made.post("/runs/{name}/answers", response_model=Run, openapi_extra=takes(Answer))
    def answer(name: str, body: Sent, request: Request) -> Json:
        """Answer a node that asks for approval."""
        said = body.read(Answer)
        with host.runs() as kept:
            asking = wishes.waiting(kept.get(name))
            node = said.node or (asking[0] if len(asking) == 1 else "")
            if not node:
                told = f"the node; waiting are: {', '.join(asking) or 'none'}"
                raise invalid_document("the body", [Problem("node", told)])
            approval = Approval(
                node=node, answer=said.answer, by=said.by or caller(request), at=time.time(),
                text=said.text,
            )  # fmt: skip
            return Json(wishes.answer(kept.store, name, approval))

    @made.post("/runs/{name}/signals", response_model=Run, openapi_extra=takes(SignalOrder))
    def signal(name: str, body: Sent, request: Request) -> Json:
        """Report to a run: found, located, fixed."""
        data = body.data()
        told = read_signal(data.get("name", ""), {"who": caller(request), **data}, time.time())
        with host.runs() as kept:
            return Json(record_signal(kept.store, name, told))

    @made.post("/signals", response_model=Signalled, openapi_extra=takes(SignalOrder))
    def signal_all(body: Sent, request: Request) -> Json:
        """Report to every run that has not ended: for tools that know of incidents and of no
        runs.
        """
        data = {"who": caller(request), **body.data()}
        name = data.get("name", "")
        read_signal(name, data, time.time())  # or it is refused, whether a run is there or not
        with host.runs() as kept:
            going = [each.name for each in kept.summaries(Filter(ended=False))]
            told = [each for each in going if _told(kept.store, each, name, data)]
        return Json(Signalled(runs=told))


def _told(store: Store, run: str, name: str, data: dict[str, Any]) -> bool:
    """Report to a run; False if it has ended meanwhile. One that begins at this very moment has
    begun after the first try.
    """
    for _ in range(2):
        try:
            record_signal(store, run, read_signal(name, data, time.time()))
        except UsageError:
            continue
        return True
    return False
