"""Faults of a container as a whole: killed, paused, stopped, restarted, removed.

Killing and pausing are the kernel's and need no runtime that answers. Stopping, restarting and
removing are asked of the runtime that started the container, which is found from the container.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, text
from faultline.changes import dockerd, runtimes
from faultline.changes.model import Change, Record
from faultline.errors import TargetGone, Unsupported
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.injection.signals import outcome, signal_name, signals
from faultline.kernel import freezer, procfs
from faultline.places import containers
from faultline.places.containers import Container
from faultline.places.model import CONTAINER, POD, Place

_PLACES = frozenset({CONTAINER, POD})
_PATIENCE = 5.0  # seconds until a new process is there
_SAMPLE = 0.05  # seconds over which what stands still must use no processor time
_KUBELET = "kube-system"


def _target(place: Place) -> Container:
    """The container that the place is, unless a guard protects it; raises TargetGone."""
    known = containers.all_containers()
    found = next((each for each in known if each.process == place.process), None)
    if found is None:
        raise TargetGone(f"{place.words} has ended (pid {place.pid})")
    guard = guards.current()
    if found.group and procfs.in_group(os.getpid(), found.group):
        guard.refuse("own-container", f"{found.words} is what this command runs in")
    if found.pod.partition("/")[0] == _KUBELET:
        guard.refuse(_KUBELET, f"{found.words} is part of Kubernetes itself")
    if found.sandbox:
        guard.refuse("sandbox", f"{found.words} holds the network of its pod")
    return found


def _process(found: Container) -> procfs.Process:
    try:
        return procfs.process(found.process.pid)
    except ProcessLookupError:
        raise TargetGone(f"{found.words} has ended (pid {found.process.pid})") from None


def _spec(found: Container) -> dict[str, Any]:
    """A container as the changes name it; raises Unsupported where its runtime is out of reach."""
    process = found.process
    spec: dict[str, Any] = {
        "container": found.id, "pid": process.pid, "start": process.start,
        "name": found.words, "runtime": found.runtime,
    }  # fmt: skip
    if found.runtime == "docker":
        return {**spec, "socket": dockerd.find(found.id)}
    tool = _crictl(found) if found.pod else found.tool
    if shutil.which(tool[0]) is None:
        raise Unsupported(
            f"{found.words} is reached by {tool[0]}, which is not installed",
            hint="container kill and container pause work without it",
        )
    return {**spec, "runtime": "cri-o" if found.pod else found.runtime, "tool": list(tool)}


def _crictl(found: Container) -> tuple[str, ...]:
    where = ("--runtime-endpoint", f"unix://{found.address}") if found.address else ()
    return ("crictl", *where)


def _again(before: Container, seconds: float = 0.0) -> Container | None:
    """What runs in the place of a container that has ended: by its id, or its name in its pod."""
    until = time.monotonic() + seconds
    while True:
        for each in containers.all_containers():
            same = each.id == before.id and each.group in (before.group, "")
            in_pod = before.pod != "" and (each.pod, each.in_pod) == (before.pod, before.in_pod)
            if (same or in_pod) and each.process != before.process:
                return each
        if time.monotonic() >= until:
            return None
        time.sleep(0.05)


class ContainerKillParams(Params):
    """Parameters of `container kill`."""

    signal: Annotated[str, AfterValidator(signal_name), Flag("s")] = "KILL"
    """Which signal, by name or number."""


class ContainerKill(Fault[ContainerKillParams]):
    """Send a signal to the first process of a container; SIGKILL ends all that is in it.

    It is the death that nobody ordered: a restart policy or the kubelet starts the container again,
    which is what can be watched with it.
    """

    id = "container.kill"
    ending = Ending.INSTANT
    does = "Sends the signal through a pidfd; no runtime is asked."
    cannot = (
        "Bring the container back: whether it comes back is its restart policy's affair. The first "
        "process of a pid namespace is spared by the kernel from signals that it does not handle."
    )
    measures = "Whether the process is still there, and whether the signal is pending or ignored."
    restores = "Nothing: whoever watches over the container may start it anew."
    example: ClassVar[dict[str, str]] = {"signal": "KILL"}
    places = _PLACES
    outlives_target = True

    def plan(self, place: Place, params: ContainerKillParams) -> list[Change]:
        found = _target(place)
        return signals([_process(found)], int(signal.Signals[f"SIG{params.signal}"]))

    def observe(self, place: Place, params: ContainerKillParams, record: Record) -> Reading:
        return outcome(record, f"SIG{params.signal}", self.measures)


class ContainerPauseParams(Params):
    """Parameters of `container pause`."""


class ContainerPause(Fault[ContainerPauseParams]):
    """Let all processes of a container stand still, as if it hung as a whole.

    Connections stay open and the kernel answers for it, so that peers run into their timeouts.
    """

    id = "container.pause"
    ending = Ending.KEEPER
    does = "Freezes the control group of the container; no runtime is asked."
    cannot = (
        "A process in the middle of an uninterruptible call stands still when that returns. "
        "What is started in the container meanwhile stands still too."
    )
    measures = "Whether the kernel calls the group frozen, and that its processes use no processor."
    restores = "Thaws the group, if it is still frozen."
    example: ClassVar[dict[str, str]] = {}
    places = _PLACES

    def plan(self, place: Place, params: ContainerPauseParams) -> list[Change]:
        found = _target(place)
        if not found.group:
            raise Unsupported(
                f"{found.words} shares its control group with others",
                hint="faultline inject process stop acts on its processes one by one",
            )
        group = freezer.group_for(found.group)
        spec = {"folder": str(group.folder), "version": group.version, "what": found.words}
        return [Change("cgroup_frozen", spec)]

    def observe(self, place: Place, params: ContainerPauseParams, record: Record) -> Reading:
        spec = record.steps[0].change.spec
        asked = "everything in it stands still"
        try:
            held = freezer.Freezer.open(spec["folder"], spec["version"])
        except FileNotFoundError:
            raise TargetGone(f"{place.words} has ended") from None
        try:
            before = _used(place)
            time.sleep(_SAMPLE)
            still, used = held.still(), sum(_used(place).values()) - sum(before.values())
        finally:
            held.close()
        count = len(before)
        values = {"asked": float(count), "measured": float(count if still else 0)}
        measured = f"{'frozen' if still else 'not frozen'}, {count} process(es), {used} ticks used"
        if still and used == 0:
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        why = "some of it is in a call that cannot be interrupted, or somebody let it go on"
        return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)


def _used(place: Place) -> dict[int, int]:
    """Processor time in clock ticks of each process in the place (proc_pid_stat(5))."""
    found: dict[int, int] = {}
    for each in place.processes():
        try:
            line = Path(f"/proc/{each.pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = line.rpartition(")")[2].split()
        found[each.pid] = int(fields[11]) + int(fields[12])
    return found


class ContainerStopParams(Params):
    """Parameters of `container stop` and `container restart`."""

    grace: Annotated[Duration, Between("0s", "2m"), Flag("g")] = text("10s")
    """How long it may take to end after it was asked to; then it is killed."""


def _stopped(place: Place, params: ContainerStopParams, again: bool) -> list[Change]:
    found = _target(place)
    grace = params.grace.seconds
    if found.pod:
        process = found.process
        guards.current().note("the kubelet starts it again, by the restart policy of its pod")
        number = int(signal.Signals[f"SIG{signal_name(found.stop_signal or 'TERM')}"])
        spec = {"pid": process.pid, "start": process.start, "name": found.words}
        return [Change("process_ended", {**spec, "signal": number, "grace": grace})]
    if found.fleeting and not again:
        why = f"{found.words} was started to be removed when it ends: it could not come back"
        guards.current().refuse("remove", why)
    return [Change("container_stopped", {**_spec(found), "grace": grace, "again": again})]


def _before(record: Record, place: Place) -> Container:
    """The container as it was, from what was recorded of it."""
    spec = record.steps[0].change.spec
    process = procfs.ProcessId(spec["pid"], spec["start"])
    pod, inner = "", ""
    words = str(spec["name"]).removeprefix("container ").partition(" (")[0]
    if record.steps[0].change.kind == "process_ended":
        pod, _, inner = words.rpartition("/")
    return Container(
        place.container, place.runtime, process, place.group,
        pod=pod, in_pod=inner,
    )  # fmt: skip


class ContainerStop(Fault[ContainerStopParams]):
    """Stop a container as its runtime does: asked to end, killed after `grace`; started at the end.

    In a pod the kubelet starts it again by itself, whatever is done here.
    """

    id = "container.stop"
    ending = Ending.KEEPER
    does = (
        "Has Docker or Podman stop it; of containerd alone and in a pod the process is sent "
        "SIGTERM and, after `grace`, SIGKILL."
    )
    cannot = (
        "Bring back what its processes held in memory. A runtime that does not answer at the "
        "deadline is asked again, and a person told."
    )
    measures = "Whether its first process has ended and no other has taken its place."
    restores = "Starts it by its runtime, if it is there and nobody has started it meanwhile."
    example: ClassVar[dict[str, str]] = {"grace": "2s"}
    places = _PLACES
    outlives_target = True

    def plan(self, place: Place, params: ContainerStopParams) -> list[Change]:
        return _stopped(place, params, again=False)

    def observe(self, place: Place, params: ContainerStopParams, record: Record) -> Reading:
        before = _before(record, place)
        ended = not before.process.alive()
        again = _again(before)
        asked = "its process ends"
        measured = "ended" if ended else "still there"
        if again is not None:
            measured += f", started again as pid {again.process.pid}"
        effective = ended and (again is None or bool(before.pod))
        effect = Effect.EFFECTIVE if effective else Effect.INEFFECTIVE
        why = "" if effective else "somebody has started it again, or it has not ended"
        values = {"asked": 1.0, "measured": float(ended)}
        return Reading(effect, asked, measured, self.measures, why, values)


class ContainerRestart(Fault[ContainerStopParams]):
    """Restart a container: asked to end, killed after `grace`, and started again at once."""

    id = "container.restart"
    ending = Ending.KEEPER
    does = "The same as `container stop`, and starts it by its runtime without waiting."
    cannot = ContainerStop.cannot
    measures = "Whether its first process has ended, and another with another start time is there."
    restores = "Starts it by its runtime, if it should not run."
    example: ClassVar[dict[str, str]] = {"grace": "2s"}
    places = _PLACES
    outlives_target = True

    def plan(self, place: Place, params: ContainerStopParams) -> list[Change]:
        return _stopped(place, params, again=True)

    def observe(self, place: Place, params: ContainerStopParams, record: Record) -> Reading:
        before = _before(record, place)
        asked = "another process in its place"
        if before.process.alive():
            why = "the process has not ended"
            return Reading(Effect.INEFFECTIVE, asked, "the same", self.measures, why)
        again = _again(before, _PATIENCE)
        if again is None:
            why = "it has ended, and is not there again yet"
            return Reading.unmeasured(asked, self.measures, why)
        measured = f"pid {before.process.pid} ended, pid {again.process.pid} runs"
        values = {"asked": 1.0, "measured": 1.0}
        return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)


class ContainerRemoveParams(Params):
    """Parameters of `container remove`."""


class ContainerRemove(Fault[ContainerRemoveParams]):
    """Remove a container with everything that it has written into itself. It is lost.

    Refused unless allowed by name, since nothing brings it back.
    """

    id = "container.remove"
    ending = Ending.INSTANT
    does = "Has its runtime end and remove it; in a pod crictl is asked."
    cannot = "Be undone. Volumes that have a name stay."
    measures = "Whether its process has ended and its runtime knows it no more."
    restores = "Nothing: a container that was removed is gone."
    example: ClassVar[dict[str, str]] = {}
    places = _PLACES
    outlives_target = True
    lethal = "nothing is left of what it would be tried on; it has tests of its own"

    def plan(self, place: Place, params: ContainerRemoveParams) -> list[Change]:
        found = _target(place)
        guards.current().refuse("remove", f"{found.words} is lost, with what it has written")
        return [Change("container_removed", _spec(found))]

    def observe(self, place: Place, params: ContainerRemoveParams, record: Record) -> Reading:
        spec = record.steps[0].change.spec
        ended = not procfs.ProcessId(spec["pid"], spec["start"]).alive()
        # A pod's runtime knows a container that is removed no more than its files do.
        known = False if spec["runtime"] == "cri-o" else runtimes.of(spec).first() is not None
        asked, measured = "gone", "gone" if ended and not known else "still known"
        effect = Effect.EFFECTIVE if measured == asked else Effect.INEFFECTIVE
        why = "" if measured == asked else "its runtime still knows it"
        return Reading(effect, asked, measured, self.measures, why)
