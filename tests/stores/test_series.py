"""What only grows: it lies beside the status and comes back with it, in every store."""

from __future__ import annotations

from collections.abc import Callable

from tests.stores import histories

from faultline.api.run import Point, Run, Sample
from faultline.stores.model import Store


def test_series_come_back_complete_whatever_is_done_to_them(store: Store) -> None:
    made = store.create(histories.run("one", seconds=70, ended=False))
    probes = [status.model_copy() for status in made.status.probes]
    for count in (1, 63, 64, 65, 200, 3, 0):  # grown over parts, cut, and empty
        probes[0].samples = [histories.sample(index) for index in range(count)]
        probes[1].samples = [*probes[1].samples[:-1], histories.sample(10_000 + count)]
        now = made.status.model_copy(update={"probes": probes})
        made = store.write_status(made.model_copy(update={"status": now}))
        assert store.get(Run, "one") == made
        assert store.list(Run) == [made]
        probes = [status.model_copy() for status in made.status.probes]
    fewer = made.status.model_copy(update={"probes": [], "traffic": []})
    made = store.write_status(made.model_copy(update={"status": fewer}))
    assert store.get(Run, "one") == made


def test_what_no_unicode_is_comes_back_from_a_series(store: Store) -> None:
    made = store.create(histories.run("one", seconds=3, ended=False))
    said = Point(at=1.0, boot_ns=1, event="said", text="half a pair \ud83d and \u6f22")
    odd = Sample(at=2.0, value=float("inf"))
    first = made.status.probes[0].model_copy(update={"samples": [odd]})
    now = made.status.model_copy(update={"timeline": [said], "probes": [first]})
    written = store.write_status(made.model_copy(update={"status": now}))
    assert store.get(Run, "one") == written


def test_another_process_goes_on_with_the_series(store: Store, opener: Callable[[], Store]) -> None:
    other = opener()
    made = store.create(histories.run("one", seconds=3, ended=False))
    for index in range(6):
        writer = (store, other)[index % 2]
        mine = writer.get(Run, "one")
        timeline = [*mine.status.timeline, histories.point(index)]
        writer.write_status(
            mine.model_copy(
                update={"status": mine.status.model_copy(update={"timeline": timeline})}
            )
        )
    told = store.get(Run, "one").status.timeline
    assert told == [*made.status.timeline, *(histories.point(index) for index in range(6))]
