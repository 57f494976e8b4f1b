"""Faults of files through the whole life, recovered by a command and by the keepers alone."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.model import End, State
from faultline.errors import Conflict, InvalidParameter, Refused, TargetGone
from faultline.injection import registry
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.units import Duration

TEXT = "".join(f"line {n}: mode = calm\n" for n in range(50))


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    (path / "app.log").write_text(TEXT)
    (path / "app.log").chmod(0o640)
    return path


def order(fault: str, duration: str = "60s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration))


def snapshot(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        try:
            info = path.lstat()
            with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue  # it went while the others were read
        same = (info.st_ino, info.st_mode, info.st_mtime_ns, info.st_atime_ns, info.st_nlink)
        found[path.name] = (content, *same)
    return found


CASES = {
    "file.add": {"path": "new.conf", "content": "x = 1\n", "permission": "0600"},
    "file.append": {
        "path": "app.log",
        "content": "{now} ERROR {n}",
        "interval": "20ms",
        "count": 10,
    },
    "file.chmod": {"path": "app.log", "permission": "0000"},
    "file.delete": {"path": "app.log"},
    "file.move": {"path": "app.log", "to": "gone.log"},
    "file.replace": {"path": "app.log", "find": "calm", "replacement": "wild"},
    "file.truncate": {"path": "app.log", "bytes": "10B"},
}


def params_of(fault: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = dict(CASES[fault])
    return {k: f"{folder}/{v}" if k in ("path", "to") else v for k, v in found.items()}


def harmed(fault: str, folder: Path) -> bool:
    """The harm as a program sees it, looked at without any code of ours."""
    log = folder / "app.log"
    return {
        "file.add": lambda: (folder / "new.conf").read_text() == "x = 1\n",
        "file.append": lambda: "ERROR 10" in log.read_text(),
        "file.chmod": lambda: stat.S_IMODE(log.stat().st_mode) == 0,
        "file.delete": lambda: not log.exists(),
        "file.move": lambda: not log.exists() and (folder / "gone.log").exists(),
        "file.replace": lambda: log.read_text() == TEXT.replace("calm", "wild"),
        "file.truncate": lambda: log.read_text() == TEXT[:10],
    }[fault]()


def until(condition: Any, patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_every_fault_of_the_family_is_tried_here():
    assert set(registry.family("file")) == set(CASES)


@pytest.mark.parametrize("fault", CASES)
def test_it_is_effective_and_recovers_without_a_trace(injector, folder, fault):
    before = snapshot(folder)
    record = injector.inject(order(fault, **params_of(fault, folder)))
    until(lambda: harmed(fault, folder))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, [step.outcome for step in ended.steps]
    assert injector.residue(record.uid) == []
    assert snapshot(folder) == before
    assert injector.recover(record.uid).end is End.RECOVERED
    assert snapshot(folder) == before


@pytest.mark.parametrize("fault", ["file.truncate", "file.delete", "file.append"])
def test_the_keepers_alone_undo_it_at_its_deadline(injector, folder, fault):
    before = snapshot(folder)
    record = injector.inject(order(fault, "2s", **params_of(fault, folder)))
    until(lambda: snapshot(folder) != before)
    until(lambda: snapshot(folder) == before)
    until(lambda: injector.get(record.uid).state is State.ENDED)
    assert injector.get(record.uid).end is End.RECOVERED


def test_planning_touches_nothing(injector, folder):
    before, times = snapshot(folder), folder.stat().st_mtime_ns
    for fault in CASES:
        injector.plan(order(fault, **params_of(fault, folder)))
    assert (snapshot(folder), folder.stat().st_mtime_ns) == (before, times)


def test_force_puts_a_file_in_place_of_another_and_brings_that_one_back(injector, folder):
    before = snapshot(folder)
    path = str(folder / "app.log")
    with pytest.raises(Refused, match="exists"):
        injector.inject(order("file.add", path=path, content="mine"))
    record = injector.inject(order("file.add", path=path, content="mine", force=True))
    assert (folder / "app.log").read_text() == "mine"
    assert injector.recover(record.uid).end is End.RECOVERED
    assert snapshot(folder) == before


def test_an_effect_that_somebody_took_away_is_told(injector, folder):
    record = injector.inject(order("file.chmod", path=str(folder / "app.log"), permission="0000"))
    (folder / "app.log").chmod(0o644)
    assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
    assert injector.recover(record.uid).end is End.PERSON
    assert stat.S_IMODE((folder / "app.log").stat().st_mode) == 0o644
    (folder / "app.log").chmod(0o640)


def test_lines_come_at_the_rate_asked_for(injector, folder):
    content = "{now:%Y-%m-%dT%H:%M:%S} ERROR {n} {uid} {{x}}"
    path = str(folder / "app.log")
    asked = order("file.append", path=path, content=content, interval="10ms", count=0)
    record = injector.inject(asked)
    time.sleep(1.0)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    last = (folder / "app.log").read_text().splitlines()[-1]
    assert record.uid in last
    assert last.endswith("{x}")
    injector.recover(record.uid)
    assert (folder / "app.log").read_text() == TEXT


def test_a_second_fault_on_the_same_content_is_refused(injector, folder):
    path = str(folder / "app.log")
    record = injector.inject(order("file.truncate", path=path, bytes="10B"))
    with pytest.raises(Conflict) as refused:
        injector.inject(order("file.truncate", path=path, bytes="5B"))
    assert refused.value.holder == record.uid


@pytest.mark.parametrize(
    ("fault", "wrong", "field"),
    [
        ("file.add", {"path": "relative"}, "path"),
        ("file.add", {"path": "/a/../b"}, "path"),
        ("file.chmod", {"permission": "rwx"}, "permission"),
        ("file.append", {"content": "{now.__class__}"}, "content"),
        ("file.append", {"content": "a\nb"}, "content"),
        ("file.append", {"count": -1}, "count"),
        ("file.truncate", {"bytes": "10"}, "bytes"),
        ("file.replace", {"find": ""}, "find"),
        ("file.replace", {"find": "(", "regex": True}, ""),
    ],
)
def test_bad_values_are_refused_with_the_name_of_the_field(injector, folder, fault, wrong, field):
    before = snapshot(folder)
    with pytest.raises(InvalidParameter) as refused:
        injector.plan(order(fault, **{**params_of(fault, folder), **wrong}))
    assert field in refused.value.field
    assert snapshot(folder) == before


def test_a_file_that_is_not_there_is_told(injector, folder):
    for fault in ("file.truncate", "file.delete", "file.chmod"):
        with pytest.raises(TargetGone, match="does not exist"):
            injector.inject(
                order(fault, **{**params_of(fault, folder), "path": str(folder / "no")})
            )
