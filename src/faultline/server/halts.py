"""The halt: everything is undone and nothing begins until it is lifted."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from faultline.api.model import Model
from faultline.changes import halt
from faultline.changes.model import End
from faultline.changes.store import Store
from faultline.server.bodies import Json, Sent, caller, takes
from faultline.server.faults import FaultView, recovered, view
from faultline.server.host import Host
from faultline.server.urgent import urgently

PATIENCE = 10.0
"""Seconds for which runs that abort are waited for; what they broke is undone before."""


class HaltOrder(Model):
    """A halt that is to be."""

    reason: str = ""
    """Why; people who are refused are told."""
    host: bool = False
    """Whether for every user and store of this host (as root)."""


class Standing(Model):
    """A halt that stands."""

    path: str
    """The file that it is."""
    why: str
    """Why."""
    by: str
    """Who wanted it."""
    at: float
    """Since when, seconds since 1970."""
    host: bool
    """Whether it is for the whole host."""


class HaltView(Model):
    """Whether anything is halted."""

    halted: bool
    """Whether nothing may begin."""
    lasting: bool
    """Whether that is still so after a reboot."""
    halts: list[Standing]
    """The halts that stand."""
    ignored: list[str]
    """Files that look like a halt and do not count, with the reason."""


class StoppedRun(Model):
    """A run that was being carried out."""

    name: str
    """Its name."""
    stopped: bool
    """Whether it has ended; the others go on ending."""


class HaltDone(HaltView):
    """What a halt has done."""

    faults: list[FaultView]
    """The faults that were undone, with what is still found of them."""
    runs: list[StoppedRun]
    """The runs that were being carried out."""
    clean: bool
    """Whether nothing is left of any fault."""


class Lifted(HaltView):
    """What is left of the halt once it was lifted: another may stand."""

    lifted: list[str]
    """The files that were removed."""


def _state(store: Store) -> dict[str, object]:
    standing = [
        Standing(path=str(each.path), why=each.why, by=each.by, at=each.at, host=each.host)
        for each in halt.standing(store)
    ]
    return {
        "halted": bool(standing),
        "lasting": halt.lasting(store),
        "halts": standing,
        "ignored": halt.ignored(store),
    }


def _halt(host: Host, order: HaltOrder, by: str) -> HaltDone:
    if order.host:
        halt.host(order.reason, by)
    with host.injector() as injector:
        running = halt.engines(injector.store)
        done = injector.halt(order.reason, by)
        ending = halt.still_carried_out(injector.store, running, PATIENCE)
        faults = [
            view(each) if each.end is End.PERSON else recovered(injector, each) for each in done
        ]
        state = _state(injector.store)
    clean = not any(each.residue or each.end == str(End.PERSON) for each in faults)
    runs = [StoppedRun(name=name, stopped=name not in ending) for name in running]
    return HaltDone.model_validate({**state, "faults": faults, "runs": runs, "clean": clean})


def routes(host: Host) -> APIRouter:
    """The routes of the halt."""
    made = APIRouter(tags=["halt"])

    @made.get("/halt", response_model=HaltView)
    def get() -> Json:
        """Whether anything is halted, since when, by whom and why."""
        with host.injector() as injector:
            return Json(HaltView.model_validate(_state(injector.store)))

    @made.post("/halt", response_model=HaltDone, openapi_extra=takes(HaltOrder, needed=False))
    async def post(body: Sent, request: Request) -> Json:
        """Undo every fault now, abort every run, and refuse new ones until it is lifted."""
        order = body.read(HaltOrder)
        return Json(await urgently(partial(_halt, host, order, caller(request))))

    @made.delete("/halt", response_model=Lifted)
    def delete(whole: Annotated[bool, Query(alias="host")] = False) -> Json:
        """Allow faults and runs again; with `host` what was halted for the whole host."""
        with host.injector() as injector:
            removed = halt.lift(injector.store, whole_host=whole)
            state = _state(injector.store)
        return Json(Lifted.model_validate({**state, "lifted": list(map(str, removed))}))

    return made
