"""Programs of others as faults: what they may, where they lie, what becomes of their undo."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from faultline.changes.kind import Context, kinds
from faultline.changes.model import End, Undone
from faultline.cli.conformance import conformance
from faultline.errors import (
    ApplyFailed,
    InvalidDocument,
    InvalidParameter,
    RecoveryIncomplete,
    Refused,
    UnknownName,
)  # fmt: skip
from faultline.injection import manifest
from faultline.injection.injector import Injector
from faultline.injection.manifest import Manifest
from faultline.injection.plan import Order
from faultline.kernel import procfs
from faultline.testing import plugins as checking
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

ROOT = Path(__file__).resolve().parents[3]
Write = Callable[..., Path]


def _order(path: Path, duration: str = "1m") -> Order:
    given = {"plugin": "probe", "parameters": [f"path={path}"]}
    return Order("custom.run", given, Duration.parse(duration))


def _status(target: Path, write: Write, injector: Injector, limits: str) -> dict[str, str]:
    """What /proc tells of the program while it applies."""
    seen = target.with_name("status")
    write(apply=f'cat /proc/self/status >"{seen}"; ulimit -v >>"{seen}"', limits=limits)
    record = injector.inject(_order(target))
    assert injector.recover(record.uid).end is End.RECOVERED
    lines = seen.read_text().splitlines()
    return {"memory": lines[-1], **dict(line.split(":\t", 1) for line in lines[:-1])}


def test_it_has_no_rights_unless_its_manifest_asks(
    target: Path, write: Write, injector: Injector
) -> None:
    told = _status(target, write, injector, 'memory = "64MiB"')
    assert {int(told[f"Cap{each}"], 16) for each in ("Eff", "Prm", "Inh", "Bnd", "Amb")} == {0}
    assert told["NoNewPrivs"] == "1"
    assert told["memory"] == str(64 << 10)  # ulimit counts in KiB
    assert told["Groups"].strip() == ""


def test_it_keeps_the_rights_that_it_asks_for_also_as_another_user(
    target: Path, write: Write, injector: Injector
) -> None:
    target.parent.chmod(0o777)
    (target.parents[1]).chmod(0o755)
    target.parents[2].chmod(0o755)
    target.parents[3].chmod(0o755)
    limits = 'user = "nobody"\ncapabilities = ["NET_RAW", "CAP_NET_ADMIN"]'
    told = _status(target, write, injector, limits)
    assert int(told["CapEff"], 16) == int(told["CapBnd"], 16) == (1 << 12 | 1 << 13)
    assert set(told["Uid"].split()) == {"65534"}


def test_a_plan_shows_what_it_may(target: Path, write: Write, injector: Injector) -> None:
    write(limits='namespaces = ["network"]\ntime = "3s"')
    plan = injector.plan(_order(target))
    (step,) = plan.steps
    assert "as root, no rights, network of its own, 256MiB of memory, 3s a call" in step.does
    assert "A program of a test" in plan.notes


def test_a_call_that_takes_too_long_is_ended_with_all_that_it_started(
    target: Path, write: Write, injector: Injector
) -> None:
    write(apply="sleep 4321 & sleep 4321", limits='time = "3s"')
    with pytest.raises(ApplyFailed, match="did not end in time"):
        injector.inject(_order(target))
    assert not procfs.find_by_cmdline("sleep 4321")
    assert injector.query()[0].end is End.RECOVERED


def test_what_outlived_whoever_called_it_is_ended_before_the_undo(
    target: Path, write: Write, injector: Injector
) -> None:
    program = write(apply="sleep 5432 & wait", limits='time = "1m"')
    change = injector.plan(_order(target)).changes[0]
    kind = kinds()["plugin"]
    ctx = Context("orphan", 0, 0, run=str(injector.store.run))
    prior = kind.capture(change.spec, ctx)
    child = os.fork()
    if child == 0:
        try:
            kind.apply(change.spec, prior, ctx)
        finally:
            os._exit(0)
    until = time.monotonic() + 20
    while not procfs.find_by_cmdline("sleep 5432") and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert kind.undo(change.spec, prior, {}, ctx).settled
    assert not procfs.find_by_cmdline("sleep 5432")
    assert program.exists()
    assert not target.exists()


def test_a_refusal_of_the_program_is_a_refusal_of_the_plan(
    target: Path, write: Write, injector: Injector
) -> None:
    write(check="""echo '{"refused": "not on a Monday", "hint": "wait"}'; exit 0""")
    with pytest.raises(Refused, match="not on a Monday"):
        injector.plan(_order(target))


@pytest.mark.parametrize("answer", ["", "[]", "no json"])
def test_an_answer_that_is_none_is_a_failure_and_is_undone(
    answer: str, target: Path, write: Write, injector: Injector
) -> None:
    write(apply=f'touch "$path"; echo "{answer}"; exit 0')
    with pytest.raises(ApplyFailed, match="JSON"):
        injector.inject(_order(target))
    assert not target.exists()


def test_a_program_that_was_changed_is_not_run_again_and_a_person_is_asked(
    target: Path, write: Write, injector: Injector
) -> None:
    program = write()
    record = injector.inject(_order(target))
    with program.open("a") as file:
        file.write("# changed\n")
    ended = injector.recover(record.uid)
    outcome = ended.steps[0].outcome
    assert ended.end is End.PERSON
    assert outcome is not None
    assert outcome.end is Undone.LEFT
    assert "has changed since" in outcome.detail
    assert outcome.commands[0][-2:] == (str(program), "undo")
    assert target.exists()
    program.write_text(program.read_text().removesuffix("# changed\n"))
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_program_that_was_replaced_is_undone_by_the_one_that_was_there(
    target: Path, write: Write, injector: Injector
) -> None:
    write()
    record = injector.inject(_order(target))
    write(undo="exit 1")
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not target.exists()


def test_an_undo_that_fails_is_tried_again_by_the_keepers(
    target: Path, write: Write, injector: Injector
) -> None:
    ready = target.with_name("ready")
    write(undo=f'[ -e "{ready}" ] || {{ echo "not yet" >&2; exit 3; }}')
    record = injector.inject(_order(target, "1s"))
    until = time.monotonic() + 30
    while injector.get(record.uid).end is not End.PERSON and time.monotonic() < until:
        time.sleep(0.05)
    outcome = injector.get(record.uid).steps[0].outcome
    assert outcome is not None
    assert "not yet" in outcome.detail
    ready.touch()
    until = time.monotonic() + 30
    while target.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not target.exists()
    assert injector.recover(record.uid).end is End.RECOVERED


@pytest.mark.parametrize("flaw", ["others may write", "a link out", "elsewhere", "of another"])
def test_what_others_could_have_put_there_is_not_run(
    flaw: str, target: Path, write: Write, injector: Injector, tmp_path: Path
) -> None:
    program = write()
    order = _order(target)
    if flaw == "others may write":
        program.parent.chmod(0o777)
    elif flaw == "of another":
        os.chown(program, 12345, 0)
    elif flaw == "a link out":
        moved = program.rename(tmp_path / "outside")
        program.symlink_to(moved)
    else:
        for each in (program, program.with_suffix(".toml")):
            each.rename(tmp_path / each.name)
        given = {"plugin": str(tmp_path / "probe.toml"), "parameters": [f"path={target}"]}
        order = Order("custom.run", given)
    with pytest.raises(Refused):
        injector.plan(order)


def _manifest(**parameter: Any) -> Manifest:
    return Manifest.read(
        {
            "name": "one",
            "summary": "x",
            "executable": "one",
            "parameters": {"it": {"help": "It.", **parameter}},
            "examples": [{}],
        }
    )


@pytest.mark.parametrize(
    ("parameter", "given", "passed"),
    [
        ({"type": "duration", "low": "1ms", "high": "1m"}, "250ms", 0.25),
        ({"type": "size", "low": "1KiB", "high": "1GiB"}, "2MiB", 2 << 20),
        ({"type": "percent", "low": "0%", "high": "50%"}, "10%", 0.1),
        ({"type": "integer", "low": 1, "high": 9}, "7", 7),
        ({"type": "number", "low": 0, "high": 1}, "0.5", 0.5),
        ({"type": "boolean"}, "yes", True),
        ({"type": "choice", "choices": ["a", "b"]}, "b", "b"),
        ({"type": "text", "pattern": "[a-z]+"}, "abc", "abc"),
    ],
)
def test_parameters_are_checked_as_ours_are(
    parameter: dict[str, Any], given: str, passed: object
) -> None:
    found = _manifest(**parameter)
    assert found.values_of({"it": given}) == {"it": passed}
    for bad in [*checking.bad_values(found.parameters["it"]), "\0"]:
        with pytest.raises(InvalidParameter):
            found.values_of({"it": bad})


def test_what_is_counted_must_be_bounded() -> None:
    with pytest.raises(InvalidParameter, match="bounds"):
        _manifest(type="integer")


def test_a_manifest_that_is_none_says_where(plugins: Path) -> None:
    (plugins / "bad.toml").write_text("name = 'bad'\nwhat = 1")
    with pytest.raises(InvalidDocument, match=r"bad\.toml"):
        manifest.load("bad")
    with pytest.raises(UnknownName, match="there is no manifest"):
        manifest.load("no-such-thing")


@pytest.mark.slow
def test_the_example_in_another_language_conforms() -> None:
    told = checking.check(ROOT / "examples" / "plugins" / "stale-lock.toml")
    assert told == {"parameters": [], "example 1": []}


@pytest.mark.slow
def test_a_program_that_leaves_something_does_not_conform(write: Write, tmp_path: Path) -> None:
    program = write(apply='touch "$path.more"')
    text = program.with_suffix(".toml").read_text().replace("/tmp/x", "{folder}/x")
    program.with_suffix(".toml").write_text(text)
    complaints = checking.check(program.with_suffix(".toml"))["example 1"]
    assert any("file x.more differs" in each for each in complaints)


def test_a_failing_apply_whose_undo_fails_too_asks_a_person(
    target: Path, write: Write, injector: Injector
) -> None:
    ready = target.with_name("ready")
    write(apply="exit 4", undo=f'[ -e "{ready}" ] || exit 5')
    with pytest.raises(RecoveryIncomplete) as why:
        injector.inject(_order(target))
    assert "probe undo ended with 5" in why.value.hint
    ready.touch()
    (ended,) = injector.recover_all()
    assert ended.end is End.RECOVERED


def test_the_command_line_tells_what_does_not_conform(write: Write) -> None:
    path = write().with_suffix(".toml")
    path.write_text(path.read_text().replace("/tmp/x", "not/whole"))
    done = CliRunner().invoke(conformance, [str(path), "--format", "json"])
    told = json.loads(done.stdout)
    assert told["conforms"] is False
    assert told["checks"]["parameters"] == [
        "example 1: path: 'not/whole' is not accepted; expected a whole path, without '..'"
    ]
