"""Experiments of the store, and runs once more as they were."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from faultline.api.experiment import Experiment
from faultline.api.model import Model
from faultline.api.run import Run
from faultline.engine import kept_experiments, replays
from faultline.engine.replaying import Wishes
from faultline.server.bodies import Json, Sent, caller, takes
from faultline.server.host import Host
from faultline.server.runs import Summarised, summarised


class Kept(Model):
    """An experiment of the store."""

    name: str
    """Its name: what a run is asked for with."""
    title: str
    """What it is about."""
    faults: list[str]
    """The faults that it injects, each once."""
    parameters: list[str]
    """The names of its parameters."""
    schedules: list[str]
    """The schedules that run it."""
    runs: int
    """How many runs of it are kept."""
    last: Summarised | None = None
    """The newest of them."""


class KeptList(Model):
    """Experiments by name."""

    experiments: list[Kept]
    """The experiments."""


class Removed(Model):
    """An experiment that is gone; its runs stay."""

    name: str
    """Its name."""


class ReplayOrder(Model):
    """How an ended run is carried out once more."""

    measured: bool = True
    """Whether each fault and node begins when it began then, for as long as it lasted; else as the
    experiment asks."""
    retarget: bool = False
    """Whether the targets are found anew. Without it the faults act on what they acted on then, and
    where that has gone nothing is done."""
    answers: bool = False
    """Whether the nodes that asked people are given the answers that these gave, after as long."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """What is left to chance is drawn from this; without it, from that of the earlier run."""
    creator: str = ""
    """Who asks; else who calls."""


def routes(host: Host) -> APIRouter:
    """The routes of stored experiments, and of replays."""
    made = APIRouter()

    @made.get("/experiments", response_model=KeptList, tags=["experiments"])
    def list_() -> Json:
        """All experiments of the store, by name, each with its newest run."""
        with host.runs() as kept:
            found = kept_experiments.all_of(kept.store)
        return Json(KeptList(experiments=list(map(_kept, found))))

    @made.get("/experiments/{name}", response_model=Experiment, tags=["experiments"])
    def get(name: str) -> Json:
        """The document of one experiment, its parameters filled in with their defaults."""
        with host.runs() as kept:
            return Json(kept.store.get(Experiment, name))

    @made.delete("/experiments/{name}", response_model=Removed, tags=["experiments"])
    def delete(name: str) -> Json:
        """Remove an experiment that no schedule runs. Its runs stay."""
        with host.runs() as kept:
            kept_experiments.remove(kept.store, name)
        return Json(Removed(name=name))

    @made.post(
        "/runs/{name}/replay", status_code=201, response_model=Run, tags=["runs"],
        openapi_extra=takes(ReplayOrder, needed=False),
    )  # fmt: skip
    def replay(name: str, body: Sent, request: Request) -> Json:
        """Carry out once more what an ended run did: the same values, choices, targets and times,
        from its record.
        """
        order = body.read(ReplayOrder)
        wishes = Wishes(
            timings=order.measured, targets=not order.retarget, answers=order.answers,
            seed=order.seed,
        )  # fmt: skip
        with host.runs() as kept:
            run = replays.replay(kept, kept.get(name), wishes, order.creator or caller(request))
        host.begin(run.metadata.name)
        return Json(run, 201, {"location": f"/v1/runs/{run.metadata.name}"})

    return made


def _kept(each: kept_experiments.Kept) -> Kept:
    return Kept(
        name=each.name, title=each.title, faults=each.faults, parameters=each.parameters,
        schedules=each.schedules, runs=each.runs,
        last=summarised(each.last) if each.last is not None else None,
    )  # fmt: skip
