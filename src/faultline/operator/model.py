"""What the reconciler of faults is given, and what it decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from faultline.api.fault import FaultResourceStatus
from faultline.api.host import Desired
from faultline.api.targets import AimedFaultSpec
from faultline.operator.cluster import Cluster
from faultline.operator.tally import HostView

UNDO = 60.0
"""Seconds after which a host that answers must have undone a fault; then a person is asked."""
LOST = 15.0
"""Seconds for which, once it is to be undone, a host that does not answer is waited for."""
GRACE = 15.0
"""Seconds that a host may take beyond a deadline before the operator has it undone."""
FORGET = 30.0
"""Seconds after its end in which the hosts' entries of a fault are waited for to go."""


@dataclass(frozen=True)
class FaultView:
    """A Fault of the API server."""

    namespace: str
    name: str
    uid: str
    generation: int = 1
    deleting: bool = False
    finalizer: bool = False
    spec: AimedFaultSpec | None = None
    problem: str = ""  # what is wrong with the spec
    status: FaultResourceStatus = field(default_factory=FaultResourceStatus)

    @property
    def owner(self) -> str:
        return f"Fault/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Facts:
    """What is known now."""

    now: float
    hosts: Mapping[str, HostView]
    cluster: Cluster | None = None  # None while it is not known yet
    halted: str | None = None  # why everything is stopped; None if nothing is
    unready: str = ""  # why what a selector needs could not be read


@dataclass(frozen=True, slots=True)
class Notice:
    """A Kubernetes Event."""

    reason: str
    message: str
    warning: bool = False


Wanted = Mapping[str, Mapping[str, Desired]]
"""By host and uid: everything that one fault wants, and nothing else of it."""


@dataclass(frozen=True)
class Decision:
    """What is to be so."""

    status: FaultResourceStatus
    wanted: Wanted
    finalizer: bool
    notices: tuple[Notice, ...] = ()
    wake: float = math.inf  # seconds after which it is to be looked at even if nothing happened
