"""What there is: the catalogue of faults, and whether the engine is well."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from faultline import __version__
from faultline.api.model import Model
from faultline.changes import halt
from faultline.injection import registry
from faultline.places.model import KINDS
from faultline.server.bodies import Json
from faultline.server.host import Host


class FaultType(Model):
    """A fault that can be injected."""

    fault: str
    """Its id."""
    summary: str
    """What the target suffers, in one sentence."""
    does: str
    """What it does to the kernel."""
    cannot: str
    """What it cannot do."""
    measures: str
    """How its effect is measured."""
    restores: str
    """What its undo puts back."""
    ends: str
    """What ends it: `kernel`, `self`, `keeper` or `instant`."""
    places: list[str]
    """The kinds of place that it can act on."""
    params: dict[str, Any]
    """The JSON schema of its parameters."""


class Catalogue(Model):
    """All faults, by id."""

    faults: list[FaultType]
    """The faults."""


class Health(Model):
    """Whether the engine is well. Asked for without a token."""

    status: Literal["ok", "halted"]
    """`halted` while nothing may begin."""
    version: str
    """Of Faultline."""


def _described(fault: registry.AnyFault) -> FaultType:
    return FaultType(
        fault=fault.id, summary=(fault.__doc__ or "").strip().splitlines()[0], does=fault.does,
        cannot=fault.cannot, measures=fault.measures, restores=fault.restores,
        ends=str(fault.ending), places=[kind for kind in KINDS if kind in fault.places],
        params=fault.params_type().model_json_schema(),
    )  # fmt: skip


def routes(host: Host) -> APIRouter:
    """The routes that tell what there is."""
    made = APIRouter(tags=["about"])

    @made.get("/catalogue", response_model=Catalogue)
    def catalogue() -> Json:
        """Every fault, with the JSON schema of its parameters."""
        return Json(Catalogue(faults=list(map(_described, registry.everything().values()))))

    @made.get("/catalogue/{fault}", response_model=FaultType)
    def one(fault: str) -> Json:
        """One fault."""
        return Json(_described(registry.get(fault)))

    @made.get("/health", response_model=Health)
    def health() -> Json:
        """Whether the engine answers and its store can be read."""
        with host.injector() as injector:
            halted = halt.current(injector.store) is not None
        with host.runs() as kept:
            kept.store.version()
        return Json(Health(status="halted" if halted else "ok", version=__version__))

    return made
