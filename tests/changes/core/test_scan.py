"""With the journal gone, what carries our mark is found and undone all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lifeground import Ground, answer, apart, faultline, keepers_of, kill

from faultline.changes.model import End, Record
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.recovery import Recovery
from faultline.kernel import procfs
from faultline.units import Duration

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]


def _lose(ground: Ground) -> None:
    """Kill both keepers and take the journal away."""
    found = list(keepers_of(ground.store).values())
    for process in found:
        process.id.send(19)
    for process in found:
        kill(process)
    for path in ground.state.glob("journal.db*"):
        path.unlink()


def _scanned(ground: Ground, fault: str, params: dict[str, Any], uid: str) -> list[str]:
    """Inject, lose all memory of it, scan; in a network namespace of its own."""

    def act() -> list[str]:
        said: list[str] = []
        with Injector(ground.state) as injector:
            injector.inject(Order(fault, params, Duration.parse("1m"), uid))
            said += injector.residue(uid)
        assert said, "nothing of it could be seen before"
        _lose(ground)
        with Recovery(ground.state) as recovery:
            found = [
                each for each in recovery.recover_scan((str(ground.folder),)) if each.uid == uid
            ]
            assert found, "the scan met nothing"
            left = [line for each in found for line in recovery.residue_of(each)]
            again = [
                each for each in recovery.recover_scan((str(ground.folder),)) if each.uid == uid
            ]
            return [*(str(each.end) for each in found), *left, *(each.uid for each in again)]

    return apart(act)


LOST: list[tuple[str, dict[str, Any]]] = [
    ("file.add", {"path": "{folder}/added", "content": "x"}),
    ("file.append", {"path": "{folder}/kept", "content": "x"}),
    ("file.chmod", {"path": "{folder}/kept", "permission": "000"}),
    ("file.delete", {"path": "{folder}/kept"}),
    ("file.move", {"path": "{folder}/kept", "to": "{folder}/moved"}),
    ("file.replace", {"path": "{folder}/kept", "find": "was", "replacement": "is"}),
    ("file.truncate", {"path": "{folder}/kept", "bytes": "0B"}),
    ("network.loss", {"interface": "lo", "percent": "10%"}),
    ("network.corrupt", {"interface": "lo", "percent": "10%"}),
    ("network.delay", {"interface": "lo", "latency": "10ms"}),
    ("network.limit", {"interface": "lo", "rate": "10mbit"}),
    ("network.occupy", {"port": 18099}),
    ("cpu.burn", {"percent": "5%"}),
]


@pytest.mark.parametrize(("fault", "params"), LOST, ids=[fault for fault, _ in LOST])
def test_what_carries_our_mark_is_recovered_without_a_journal(
    fault: str, params: dict[str, Any], ground: Ground
) -> None:
    uid = f"lost-{fault.replace('.', '-')}"
    before = ground.kept.read_text(), ground.kept.stat().st_mode
    there = {
        name: value.replace("{folder}", str(ground.folder)) if isinstance(value, str) else value
        for name, value in params.items()
    }
    assert _scanned(ground, fault, there, uid) == ["recovered"]
    assert ground.names() == ["kept"]
    assert (ground.kept.read_text(), ground.kept.stat().st_mode) == before
    assert not procfs.find_marked(f"faultline:{uid}")


def test_a_scan_works_where_the_journal_is_no_database(ground: Ground) -> None:
    def act() -> list[Any]:
        with ground.injector() as injector:
            injector.inject(ground.order(uid="spoilt"))
        _lose(ground)
        ground.store.journal.write_bytes(b"rubbish" * 1000)
        ground.store.journal.chmod(0o600)
        refused = faultline(ground.state, "query")
        words = ("recover", "--scan", "--folder", str(ground.folder), "--format", "json")
        found = answer(faultline(ground.state, *words))
        ends = [[each["uid"], each["end"], each["residue"]] for each in found]
        return [refused.returncode, "recover --scan" in refused.stderr, ends]

    told = apart(act)
    ground.store.journal.unlink()
    assert told == [1, True, [["spoilt", "recovered", []]]]
    assert ground.names() == ["kept"]


def test_a_scan_recovers_what_the_journal_knows_by_its_record(ground: Ground) -> None:
    def act() -> list[list[str]]:
        with ground.injector() as injector:
            injector.inject(ground.order(uid="known"))
            found: list[Record] = injector.recover_scan((str(ground.folder),))
            return [[each.uid, each.fault, str(each.end)] for each in found]

    assert apart(act) == [["known", "file.add", str(End.RECOVERED)]]
    assert ground.names() == ["kept"]


def test_a_scan_leaves_alone_what_only_looks_like_ours(ground: Ground) -> None:
    pretender = ground.folder / ".faultline-pretend-0.json"
    pretender.write_text("{}")
    other = ground.folder / ".faultline-rc"
    other.write_text("a file of somebody else")

    def act() -> list[str]:
        with Recovery(ground.state) as recovery:
            return [str(each.end) for each in recovery.recover_scan((str(ground.folder),))]

    assert apart(act) == []
    assert other.read_text() == "a file of somebody else"
    assert Path(pretender).exists()
