"""The conformance suite: what every fault must keep, ours and other people's.

`check(fault_id)` runs in a network namespace, a folder and a store of its own and returns
complaints; an empty list conforms. A package that brings faults tests them with

    @pytest.mark.parametrize("fault_id", registry.family("mine"))
    def test_conforms(fault_id): assert conformance.check(fault_id) == []
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from faultline.api.quantities import Between, Quantity
from faultline.changes import keepers
from faultline.changes.model import End, Record, State
from faultline.errors import ApplyFailed, FaultlineError, InvalidParameter, NotRecorded, Unsupported
from faultline.injection import registry, trial
from faultline.injection.injector import Injector
from faultline.injection.model import Ending
from faultline.injection.plan import HOST as HOST_TARGET
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import clock, procfs
from faultline.places.find import Target, find
from faultline.places.model import HOST, Place, host
from faultline.testing import crash, residue
from faultline.units import Duration

GOOD_ENDS = (End.RECOVERED, End.NOTHING)
SETTLE = 8.0  # seconds in which keepers finish and the kernel takes things down


@dataclass
class Ground:
    """One fault's scratch ground: parameters, a store, what it looked like before."""

    fault_id: str
    params: dict[str, Any]
    folder: Path
    state: Path
    target: Target = HOST_TARGET
    known: dict[str, str] = field(default_factory=dict[str, str])
    complaints: list[str] = field(default_factory=list[str])
    place: Place = field(default_factory=host)
    before: residue.Snapshot | None = None
    files: dict[str, Any] = field(default_factory=dict[str, Any])

    def order(self, duration: str = "1m", uid: str = "") -> Order:
        return Order(self.fault_id, self.params, Duration.parse(duration), uid, target=self.target)

    def can_name(self, fault_id: str) -> bool:
        """Whether this ground has all that another fault's example names."""
        example = trial.filled(registry.get(fault_id).example, self.known)
        return not any("{" in str(value) for value in example.values())

    def order_for(self, fault_id: str) -> Order:
        """The example of another fault on the same ground."""
        fault = registry.get(fault_id)
        params = fault.params_type().read_text(trial.filled(fault.example, self.known))
        given = params.model_dump(mode="json", exclude_unset=True)
        return Order(fault_id, given, Duration.parse("1m"), target=self.target)

    def look(self) -> None:
        """Remember what everything looks like now."""
        self.place = find(self.target)
        self.before = self._snapshot()
        self.files = files_of(self.folder)

    def same(self, when: str, seconds: float = SETTLE) -> None:
        """Complain about every difference to what it looked like."""
        assert self.before is not None
        until = time.monotonic() + seconds
        while left := self._left():
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        self.complaints += [f"{when}: {line}" for line in left]
        differ = changed(self.files, files_of(self.folder))
        self.complaints += [f"{when}: {line}" for line in differ]

    def _snapshot(self) -> residue.Snapshot:
        """Everything, as it is seen from within the place's network."""
        process = self.place.process
        if process is not None and not process.alive():
            self.place = find(self.target)  # it was started anew
        with self.place.entered():
            return residue.snapshot(folders=[self.folder])

    def _left(self) -> list[str]:
        """The difference; of processes, groups and mounts, which all share, only what bears a uid
        of ours.
        """
        assert self.before is not None
        lines = residue.difference(self.before, self._snapshot())
        with Injector(self.state) as injector:
            uids = [record.uid for record in injector.query()]
        shared = tuple(f"{sign} {area}" for sign in "+-" for area in ("process", "cgroup", "mount"))
        mine = [any(uid in line for uid in uids) for line in lines]
        kept = zip(lines, mine, strict=True)
        return [line for line, ours in kept if ours or not line.startswith(shared)]

    def want(self, right: bool, complaint: str) -> None:
        if not right:
            self.complaints.append(complaint)


@contextlib.contextmanager
def prepared(fault_id: str, kind: str) -> Generator[Ground]:
    """The scratch ground of a fault on a kind of place; ends the keepers of its store."""
    fault = registry.get(fault_id)
    with (
        trial.ground(fault, kind) as given,
        tempfile.TemporaryDirectory(prefix="faultline-store.") as state,
    ):
        params = fault.params_type().read_text(given.params)
        ground = Ground(
            fault_id,
            params.model_dump(mode="json", exclude_unset=True),
            given.folder,
            Path(state),
            given.target,
            given.known,
        )
        try:
            yield ground
        finally:
            with Injector(ground.state) as injector:
                for record in injector.recover_all():
                    ground.want(record.end is not End.PERSON, f"{record.uid} needs a person")
                keepers.retire(injector.store)


def files_of(folder: Path) -> dict[str, Any]:
    """Names, contents, modes and inodes of a scratch folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (oct(info.st_mode), info.st_ino, content)
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [f"file {name} differs" for name in names if before.get(name) != after.get(name)]


def isolated(act: Callable[[], list[str]], patience: float = 300.0) -> list[str]:
    """Run a check in a child with a network namespace of its own; its complaints.

    Raises Unsupported where this kernel or these rights cannot do what is checked.
    """
    why: list[str] = []
    answer = trial.in_child(lambda: _told(act), patience, why)
    if isinstance(answer, str):
        raise Unsupported(answer)
    return [_unended(why)] if answer is None else answer


def _unended(why: list[str]) -> str:
    return "; ".join(("the check did not come to an end", *why))


def _told(act: Callable[[], list[str]]) -> list[str] | str:
    try:
        return act()
    except Unsupported as error:
        return error.message


def check(fault_id: str, kind: str = HOST) -> list[str]:
    """Everything but the kill matrix, in an isolated child; empty when the fault conforms.

    `kind` is of place: host, or process for one that has everything of its own, as a container has.
    """
    return isolated(lambda: _check(fault_id, kind))


def _check(fault_id: str, kind: str) -> list[str]:
    with prepared(fault_id, kind) as ground, Injector(ground.state) as injector:
        ground.look()
        injector.plan(ground.order())
        ground.same("plan must touch nothing", 0.0)
        _refusals(ground, injector)
        ground.same("refused parameters must change nothing", 0.0)
        _effect_and_recovery(ground, injector)
        if registry.get(fault_id).ending is not Ending.INSTANT:
            _deadline(ground, injector)
    return ground.complaints


def _effect_and_recovery(ground: Ground, injector: Injector) -> None:
    record = injector.inject(ground.order())
    reading = injector.observe(record.uid)
    if reading.busy:  # nothing can be said of the fault here and now
        raise Unsupported(f"{reading.effect}: {reading.reason}")
    told = f"asked {reading.asked}, measured {reading.measured}: {reading.reason}"
    ground.want(reading.effect is Effect.EFFECTIVE, f"effect: {reading.effect}, {told}")
    end = injector.recover(record.uid).end
    ground.want(end in GOOD_ENDS, f"recover ended as {end}")
    left = injector.residue(record.uid)
    ground.want(not left, f"residue: {left}")
    if end is not End.NOTHING:
        ground.same("after recover")
    again = injector.recover(record.uid).end
    ground.want(again is end, f"a second recover ended as {again}, the first as {end}")


def _deadline(ground: Ground, injector: Injector) -> None:
    """With nobody recovering it, the fault is gone when its deadline has passed."""
    if registry.get(ground.fault_id).scratch == "process":
        return  # its sleeping process was ended by the check before
    record = _briefly(ground, injector, 1500)
    while clock.now() < record.deadline:
        time.sleep(0.05)
    wait_ended(injector, record.uid)
    end = injector.get(record.uid).end
    ground.want(end in GOOD_ENDS, f"at the deadline it ended as {end}")
    ground.same("after the deadline")


def _briefly(ground: Ground, injector: Injector, milliseconds: int) -> Record:
    """Inject for a short time; longer where the machine is too busy to start a worker within it."""
    try:
        return injector.inject(ground.order(f"{milliseconds}ms"))
    except (ApplyFailed, NotRecorded):
        return injector.inject(ground.order(f"{6 * milliseconds}ms"))


def wait_ended(injector: Injector, uid: str, seconds: float = SETTLE) -> None:
    """Wait until the journal says that a fault has ended."""
    until = time.monotonic() + seconds
    while injector.get(uid).state is not State.ENDED and time.monotonic() < until:
        time.sleep(0.02)


# ---------------------------------------------------------------------------- refusing bad input


def _refusals(ground: Ground, injector: Injector) -> None:
    model = registry.get(ground.fault_id).params_type()
    for name, info in model.model_fields.items():
        for bad in bad_values(info):
            order = replace(ground.order(), params={**ground.params, name: bad})
            try:
                injector.plan(order)
            except InvalidParameter as error:
                ground.want(name in error.field, f"{name}={bad!r} was blamed on {error.field}")
            except FaultlineError as error:
                ground.complaints.append(f"{name}={bad!r} gave {type(error).__name__}: {error}")
            else:
                ground.complaints.append(f"{name}={bad!r} was accepted")
    try:
        unknown = {**ground.params, "no_such_field": "1"}
        injector.plan(replace(ground.order(), params=unknown))
        ground.complaints.append("an unknown field was accepted")
    except InvalidParameter as error:
        ground.want("no_such_field" in error.field, f"an unknown field was blamed on {error.field}")


def bad_values(info: FieldInfo) -> list[Any]:
    """Values that a field must refuse, from its own type and bounds."""
    metadata = [*info.metadata]
    for argument in get_args(info.annotation):
        metadata += get_args(argument)[1:] if hasattr(argument, "__metadata__") else []
    bad: list[Any] = []
    for item in metadata:
        if isinstance(item, Quantity):
            bad += [17, "17", "-1s", "many", "1 parsec", ""]
        if isinstance(item, Between):
            bad += _beyond(item)
    kinds = {info.annotation, *get_args(info.annotation)}
    if any(get_origin(kind) is Literal for kind in kinds):
        bad.append("no-such-choice")
    if int in kinds and not bad:
        bad.append("many")
    return bad


def _beyond(bounds: Between) -> list[Any]:
    if isinstance(bounds.low, str) or isinstance(bounds.high, str):
        return []  # the text forms above; a quantity beyond is made by the property tests
    broken = [] if isinstance(bounds.low, float) else [0.5]  # of what is counted
    return [bounds.low - 1, bounds.high + 1, *broken, "1e3"]


# ------------------------------------------------------------------------------- the kill matrix


def check_killed_injector(fault_id: str, sample: int, seed: int, kind: str = HOST) -> list[str]:
    """SIGKILL of the injecting process at `sample` random steps (0: at every one)."""
    answer = kill_points(fault_id, sample, seed, kind)
    return [line for lines in answer.values() for line in lines]


def kill_points(fault_id: str, sample: int, seed: int, kind: str = HOST) -> dict[str, list[str]]:
    """The same with the complaints of each point that the process was killed at."""
    why: list[str] = []
    answer = trial.in_child(lambda: _each_point(fault_id, sample, seed, kind), 900.0, why)
    if isinstance(answer, str):
        raise Unsupported(answer)
    return {"all": [_unended(why)]} if answer is None else answer


def _each_point(fault_id: str, sample: int, seed: int, kind: str) -> dict[str, list[str]] | str:
    try:
        return _killed_injector(fault_id, sample, seed, kind)
    except Unsupported as error:
        return error.message


def _killed_injector(fault_id: str, sample: int, seed: int, kind: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with prepared(fault_id, kind) as ground:
        names = _points(ground)
        chosen = list(range(len(names)))
        if sample and sample < len(chosen):
            chosen = sorted(random.Random(seed).sample(chosen, sample))
        for point in chosen:
            with prepared(fault_id, kind) as fresh:
                fresh.look()
                killed = crash.injected_until(
                    fresh.order(uid=f"killed-{point}"), fresh.state, point
                )
                fresh.want(killed, f"point {point} was not reached")
                with Injector(fresh.state) as injector:
                    injector.recover_all()
                if not _instant(fault_id):
                    fresh.same(f"killed {names[point]} ({point} of {len(names)})")
            found[f"{point} {names[point]}"] = fresh.complaints
        found["before"] = ground.complaints
    if not found["before"]:
        del found["before"]
    return found


def _points(ground: Ground) -> list[str]:
    names = crash.points(ground.order(uid="counted"), ground.state)
    with Injector(ground.state) as injector:
        injector.recover_all()
    return names


def _instant(fault_id: str) -> bool:
    fault = registry.get(fault_id)
    return fault.ending is Ending.INSTANT or fault.id == "process.kill"


def check_killed_keepers(fault_id: str, how: str, kind: str = HOST) -> list[str]:
    """Keepers killed or stopped while the fault is on: `one`, `both`, `stopped`."""
    return isolated(lambda: _killed_keepers(fault_id, how, kind))


def _killed_keepers(fault_id: str, how: str, kind: str) -> list[str]:
    ending = registry.get(fault_id).ending
    with prepared(fault_id, kind) as ground, Injector(ground.state) as injector:
        ground.look()
        record = _briefly(ground, injector, 2500)
        stopped = _hurt_keepers(injector, how)
        while clock.now() < record.deadline:
            time.sleep(0.05)
        if how == "both":
            if ending in (Ending.KERNEL, Ending.SELF) and not _instant(fault_id):
                reading = injector.observe(record.uid)
                effective = reading.effect is Effect.EFFECTIVE
                ground.want(not effective, f"still effective without keepers: {reading.measured}")
            injector.adopt()  # the next start of anything of ours
        wait_ended(injector, record.uid)
        if not _instant(fault_id):
            ground.same(f"keepers: {how}")
        for process in stopped:
            process.id.send(signal.SIGCONT)
    return ground.complaints


def _hurt_keepers(injector: Injector, how: str) -> list[procfs.Process]:
    """Kill or stop keepers of this store; those that were stopped come back."""
    found = procfs.find_by_cmdline(f"keeper:{injector.store.state}", exclude=[os.getpid()])
    first = [each for each in found if each.cmdline[-1] == "a"]
    if how == "stopped":
        for process in first:
            process.id.send(signal.SIGSTOP)
        return first
    for process in found if how == "both" else first:
        process.id.send(signal.SIGKILL)
        process.id.wait(5.0)
    return []
