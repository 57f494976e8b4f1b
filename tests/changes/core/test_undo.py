"""Undoing goes on past what fails, says what a person must do, and never harms what is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from lifeground import Ground, faultline, record

from faultline.changes import catalogue, undo
from faultline.changes.kind import Context, Data, Kind
from faultline.changes.lock import FaultLock
from faultline.changes.model import Change, End, Outcome, Presence, State, Step, Undone
from faultline.errors import ApplyFailed, FaultlineError, RecoveryIncomplete
from faultline.kernel import syscalls


class Noted(Kind):
    """A kind whose world is a list; `trouble` says what goes wrong with it."""

    name: ClassVar[str] = "noted"
    world: ClassVar[list[str]] = []
    trouble: ClassVar[dict[str, str]] = {}

    def capture(self, spec: Data, ctx: Context) -> Data:
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        self.world.append(spec["what"])
        if self.trouble.get(spec["what"]) == "apply":
            raise LookupError("nobody foresaw this")
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.OURS if spec["what"] in self.world else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        trouble = self.trouble.get(spec["what"], "")
        if trouble in ("undo", "commands"):
            raise ZeroDivisionError(f"undoing {spec['what']}")
        if trouble == "left":
            return Outcome(Undone.LEFT, "somebody else changed it")
        if spec["what"] not in self.world:
            return Outcome(Undone.ABSENT)
        if trouble != "stays":
            self.world.remove(spec["what"])
        return Outcome(Undone.UNDONE)

    def describe(self, spec: Data) -> tuple[str, str]:
        return f"note {spec['what']}", "strike it out"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        if self.trouble.get(spec["what"]) == "commands":
            raise OSError("cannot even look")
        return (("strike", spec["what"]),)


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.KINDS, "noted", Noted())
    Noted.world.clear()
    Noted.trouble.clear()


def _steps(*names: str) -> list[Step]:
    return [Step(Change("noted", {"what": name})) for name in names]


def _applied(*names: str) -> tuple[Any, list[Context]]:
    made = record("u1", *_steps(*names))
    Noted.world.extend(names)
    return made, undo.contexts(made, None, "", "")


def test_undo_goes_backwards() -> None:
    made, contexts = _applied("first", "second", "third")
    order: list[str] = []
    original = Noted.undo

    def told(self: Noted, spec: Data, *rest: Any) -> Outcome:
        order.append(spec["what"])
        return original(self, spec, *rest)

    Noted.undo = told  # type: ignore[method-assign]
    try:
        assert undo.undo_steps(made, contexts) is End.RECOVERED
    finally:
        Noted.undo = original  # type: ignore[method-assign]
    assert order == ["third", "second", "first"]


@pytest.mark.parametrize("trouble", ["undo", "commands", "left", "stays"])
def test_the_others_are_undone_when_one_fails(trouble: str) -> None:
    made, contexts = _applied("first", "second", "third")
    Noted.trouble["second"] = trouble
    assert undo.undo_steps(made, contexts) is End.PERSON
    assert Noted.world == ["second"]
    outcome = made.steps[1].outcome
    assert outcome
    assert not outcome.settled
    if trouble != "commands":
        assert outcome.commands == (("strike", "second"),)
        assert "by hand: strike second" in undo.by_hand(made)
    assert undo.residue(made, contexts) == ["step 1: note second"]


def test_a_step_that_cannot_even_be_looked_at_is_undone_all_the_same() -> None:
    """Looking for the commands must not come before undoing."""
    made, contexts = _applied("first")

    def fails(*_: Any) -> Any:
        raise OSError("cannot look")

    Noted.commands, original = fails, Noted.commands  # type: ignore[method-assign]
    try:
        assert undo.undo_steps(made, contexts) is End.RECOVERED
    finally:
        Noted.commands = original  # type: ignore[method-assign]
    assert Noted.world == []


def test_a_kind_that_this_version_does_not_know_needs_a_person_and_stops_nothing() -> None:
    made, _ = _applied("first")
    made.steps.append(Step(Change("of-the-future", {})))
    contexts = undo.contexts(made, None, "", "")
    assert undo.undo_steps(made, contexts) is End.PERSON
    assert Noted.world == []
    assert undo.survivors(made) == [1]  # what is not known is not declared gone by a reboot
    assert "of-the-future" in undo.residue(made, contexts)[0]


def test_whoever_lost_the_lock_makes_no_further_change(tmp_path: Path) -> None:
    made, contexts = _applied("first", "second")
    lock, other = FaultLock(tmp_path / "lock"), FaultLock(tmp_path / "lock", patience=0.0)
    lock.acquire()
    other.acquire()
    assert undo.undo_steps(made, contexts, lock) is End.PERSON
    assert Noted.world == ["first", "second"]
    assert undo.undo_steps(made, contexts, other) is End.RECOVERED
    lock.close()
    other.close()


def test_a_change_that_was_made_after_a_keeper_took_over_is_undone_by_its_maker(
    tmp_path: Path,
) -> None:
    made = record("u1", *_steps("first", "second"))
    lock, other = FaultLock(tmp_path / "lock"), FaultLock(tmp_path / "lock", patience=0.0)
    lock.acquire()

    def note(index: int, step: Step) -> None:
        if index == 1:
            other.acquire()

    with pytest.raises(ApplyFailed, match="a keeper took over"):
        undo.apply_steps(made, undo.contexts(made, None, "", ""), lock, note)
    assert Noted.world == ["first"]
    lock.close()
    other.close()


def test_the_ends_tell_apart_what_happened() -> None:
    for ends, end in (
        ((Undone.UNDONE, Undone.ABSENT), End.RECOVERED),
        ((Undone.KEPT,), End.RECOVERED),
        ((Undone.GONE, Undone.GONE), End.GONE),
        ((Undone.GONE, Undone.UNDONE), End.RECOVERED),
        ((Undone.LEFT, Undone.UNDONE), End.PERSON),
        ((Undone.FAILED,), End.PERSON),
    ):
        made = record("u1", *_steps(*(str(number) for number in range(len(ends)))))
        for step, each in zip(made.steps, ends, strict=True):
            step.outcome = Outcome(each)
        assert undo.end_of(made) is end


# ------------------------------------------------------------------------ through the life cycle


@pytest.mark.parametrize("error", [LookupError("unforeseen"), KeyboardInterrupt()])
def test_whatever_apply_raises_what_it_did_is_undone(
    error: BaseException, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = catalogue.KINDS["file_added"]
    apply = kind.apply

    def breaks(*given: Any) -> Data:
        apply(*given)
        assert ground.target.exists()
        raise error

    monkeypatch.setattr(kind, "apply", breaks)
    with ground.injector() as injector:
        with pytest.raises(type(error)):
            injector.inject(ground.order(uid="broken"))
        assert ground.names() == ["kept"]
        assert injector.get("broken").end is End.RECOVERED


def test_an_error_of_the_system_says_what_and_where(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Data:
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(catalogue.KINDS["file_added"], "apply", breaks)
    with ground.injector() as injector, pytest.raises(ApplyFailed, match=r"No space.*/some/file"):
        injector.inject(ground.order())


def test_what_could_be_neither_applied_nor_undone_is_a_matter_for_a_person(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = catalogue.KINDS["file_added"]

    def breaks(*_: Any) -> Any:
        raise OSError(5, "Input/output error", "/some/file")

    monkeypatch.setattr(kind, "apply", breaks)
    monkeypatch.setattr(kind, "undo", breaks)
    with ground.injector() as injector:
        with pytest.raises(RecoveryIncomplete, match="by hand: ") as raised:
            injector.inject(ground.order(uid="broken"))
        assert raised.value.exit_code == 6
        assert injector.get("broken").end is End.PERSON


def test_a_second_recovery_is_harmless(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.inject(ground.order())
        assert ground.target.read_text() == "ours"
        assert injector.recover(made.uid).end is End.RECOVERED
        assert ground.names() == ["kept"]
        assert injector.recover(made.uid).end is End.RECOVERED
        assert injector.residue(made.uid) == []


@pytest.mark.needs_root
def test_a_failing_undo_gives_the_commands_and_its_exit_status(ground: Ground) -> None:
    """The file cannot be removed: its folder has become immutable."""
    target = ground.target
    with ground.injector() as injector:
        uid = injector.inject(ground.order()).uid
    fd = syscalls.os.open(ground.folder, 0)
    try:
        _immutable(fd, on=True)
        result = faultline(ground.state, "recover", uid)
        assert result.returncode == 6, result
        assert "needs a person" in result.stdout
        assert f"by hand: rm -- {target}" in result.stdout or "by hand: rm" in result.stdout
        assert "still there" in result.stdout
        shown = faultline(ground.state, "query", uid)
        assert "by hand: " in shown.stdout
    finally:
        _immutable(fd, on=False)
        syscalls.os.close(fd)
    again = faultline(ground.state, "recover", uid)
    assert again.returncode == 0, again
    assert ground.names() == ["kept"]
    with ground.injector() as injector:
        assert injector.get(uid).end is End.RECOVERED
        assert injector.get(uid).state is State.ENDED


def _immutable(fd: int, on: bool) -> None:
    """Set or clear the attribute of chattr(1), by ioctl_iflags(2)."""
    import fcntl
    import struct

    flags = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, struct.pack("l", 0))[:4])[0]
    flags = flags | 0x10 if on else flags & ~0x10
    fcntl.ioctl(fd, 0x40086602, struct.pack("i", flags))


def test_the_error_of_an_unknown_kind_is_one_of_ours() -> None:
    with pytest.raises(FaultlineError):
        undo.kind_of(Step(Change("of-the-future", {})))
