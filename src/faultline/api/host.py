"""A host: one machine with an agent, what it should suffer and what it suffers.

Whoever wants faults there writes `spec.desired`; the agent makes it so and writes `status.actual`.
Both are level-triggered: an entry that appears is injected, one that goes is undone, and a message
that is lost does not matter. State is kept per host, so that a fault on thousands of targets is
never one huge list.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from faultline.api.condition import Condition
from faultline.api.model import Model, Resource, StatusModel
from faultline.api.quantities import Between, Duration, text
from faultline.api.target import TargetSpec
from faultline.api.targets import Flap


class PodTarget(Model):
    """A pod by its identity: another one of the same name is not it."""

    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    uid: str
    """Its uid in the API server; of a static pod the annotation `kubernetes.io/config.mirror`,
    which is the uid that its node knows."""
    container: str = ""
    """Which of its containers, by name; without it the pod as a whole for faults of the network,
    and for others its only container."""
    container_id: str = ""
    """The id of that container in its runtime when it was chosen; another one of the same name is
    hit only with `follow`."""
    owner: str = ""
    """Who replaces it when it goes, as KIND/NAME."""


class ObjectTarget(Model):
    """An object of the API server by its identity: another one of the same name is not it."""

    api_version: str
    """The group and version by which it was found."""
    kind: str
    """Its kind."""
    namespace: str = ""
    """Its namespace; empty for an object of the cluster."""
    name: str
    """Its name."""
    uid: str
    """Its uid."""
    owner: str = ""
    """Who replaces it when it goes, as KIND/NAME."""


class Desired(Model):
    """One fault on one target of this host."""

    uid: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Its uid in the journal of the host, and in every mark: the same however often it is asked
    for."""
    owner: str
    """Who wants it: `Fault/NAMESPACE/NAME`, or `Run/NAMESPACE/NAME`."""
    owner_uid: str
    """The uid of that object in the API server."""
    fault: Annotated[str, Field(pattern=r"^[a-z0-9]+\.[a-z0-9_-]+$")]
    """Which one, as `family.fault`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Its parameters."""
    duration: Annotated[Duration, Between("100ms", "7d")] = text("10m")
    """How long it lasts, from the moment at which it is injected."""
    asked_at: float
    """When it was asked for, seconds since 1970: an agent that reads it later than `duration` after
    that does not begin it any more."""
    allow: list[str] = Field(default_factory=list[str])
    """Guards that are overridden, by name."""
    pod: PodTarget | None = None
    """The pod that it acts on; without it and without `target`, the host itself."""
    object: ObjectTarget | None = None
    """The object that it acts on, if it is a fault of objects: the operator carries it out."""
    target: TargetSpec = Field(default_factory=TargetSpec)
    """A target of the host that is no pod."""
    flap: Flap | None = None
    """Of a fault of objects: it comes and goes."""
    follow: bool = False
    """Whether it is injected again into the container that follows when its own has ended."""
    undo: bool = False
    """Whether it is to be undone now, or not to be begun. It stays listed until it is known how it
    ended: `status.actual` keeps what it says of it for just as long."""
    survives: bool = False
    """Whether it goes on while the API server cannot be reached, until its deadline: for faults
    that hit the API server or the way to it."""


class HostSpec(Model):
    """What a host should be suffering."""

    desired: list[Desired] = Field(default_factory=list[Desired])
    """The faults that should be there. What is marked with `undo` is undone and kept in
    `status.actual`; what is taken out is undone too, and forgotten when that is done."""
    halted: str = ""
    """Why nothing may be there; empty while it may."""
    warden: bool = False
    """Whether its agent removes webhook configurations of faults of admission that are overdue, or
    whose operator is lost."""


class Actual(StatusModel):
    """One fault of this host as it is."""

    uid: str
    """Its uid, as in `spec.desired`."""
    stage: Literal["injecting", "active", "recovering", "ended", "refused"]
    """Where it stands; `refused`: it was never injected, `error` says why."""
    effect: Literal["effective", "ineffective", "unmeasured"] | None = None
    """What was measured at the target; None until then."""
    asked: float | None = None
    """The value that was asked for, in the unit of the fault."""
    measured: float | None = None
    """The value that was measured."""
    text: str = ""
    """Asked against measured, in one line."""
    injected_at: float | None = None
    """When it was injected; this and the next are seconds since 1970 on this host."""
    effective_at: float | None = None
    """When its effect was first measured."""
    ended_at: float | None = None
    """When nothing of it was found any more."""
    end: Literal["recovered", "nothing to undo", "target gone", "needs a person"] | None = None
    """How it ended."""
    note: str = ""
    """With `needs a person`: the commands to run; else what there is to say of how it ended, such
    as that the lease was over."""
    error: str = ""
    """Why it could not be injected, measured or undone."""
    record: str = ""
    """Of a fault of objects, as JSON: what it changes, makes and ends, written before the first
    call. What the fields of an object were is also in a note on it; of a Secret only there."""


class Capability(StatusModel):
    """Whether one fault works on this host, as it was tried."""

    fault: str
    """Which one, as `family.fault`."""
    works: bool
    """Whether it does."""
    why: str = ""
    """Why not, and what to install."""


class HostStatus(StatusModel):
    """What a host is suffering, and what it could."""

    actual: list[Actual] = Field(default_factory=list[Actual])
    """Every fault that is wanted, or that is still there though nobody wants it any more; those
    that ended stay until they are wanted no longer."""
    observed_generation: int = 0
    """The generation of the spec that the agent has acted upon."""
    boot_id: str = ""
    """The boot of the machine: another one means that it was started anew."""
    agent: str = ""
    """The version of the agent."""
    kernel: str = ""
    """The release of the kernel."""
    runtimes: list[str] = Field(default_factory=list[str])
    """The container runtimes that were found."""
    components: list[str] = Field(default_factory=list[str])
    """The programs of the control plane that run there, in pods or not."""
    capabilities: list[Capability] = Field(default_factory=list[Capability])
    """What works here. Of faults that cannot be tried without ending something nothing is said."""
    unwanted: list[str] = Field(default_factory=list[str])
    """Marks of ours that were found on the machine and that no journal knows."""
    conditions: list[Condition] = Field(default_factory=list[Condition])
    """`Ready`: the agent renews its lease; `Clean`: nothing is there that is not wanted."""


class Host(Resource):
    """One machine with an agent."""

    plural: ClassVar[str] = "hosts"
    cluster_wide: ClassVar[bool] = True

    kind: Literal["Host"] = "Host"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: HostSpec = Field(default_factory=HostSpec)
    """What it should be suffering."""
    status: HostStatus = Field(default_factory=HostStatus)
    """What it is suffering."""
