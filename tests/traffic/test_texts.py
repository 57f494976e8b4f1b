"""Templates and feeds."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from faultline.traffic.chance import Chance
from faultline.traffic.feed import Feeder, heading
from faultline.traffic.template import Data, Template, Values


def values(row: dict[str, Any] | None = None, number: int = 7) -> Values:
    return Values(row or {}, number, 3)


def test_places_become_values_and_the_rest_stays() -> None:
    filled = Template("/u/{{ id }}?n={{number}}&u={{user}} {not} {{ }} {{}").fill(values({"id": 5}))
    assert filled == "/u/5?n=7&u=3 {not} {{ }} {{}"


def test_a_built_in_value_is_one_value_within_a_turn() -> None:
    turn = values()
    first, again = Template("{{uuid}} {{random}}").fill(turn), Template("{{uuid}}").fill(turn)
    assert first.split()[0] == again
    assert uuid.UUID(again)
    assert Template("{{uuid}}").fill(values()) != again


def test_what_a_step_found_comes_before_the_row() -> None:
    turn = values({"id": "row"})
    turn["id"] = "found"
    assert Template("{{id}}").fill(turn) == "found"


def test_data_keeps_the_type_of_a_lone_place() -> None:
    data = Data({"a": "{{n}}", "b": ["x{{n}}", 1, True, None], "c": {"d": "{{list}}"}})
    filled = data.fill(values({"n": 5, "list": [1, 2]}))
    assert filled == {"a": 5, "b": ["x5", 1, True, None], "c": {"d": [1, 2]}}
    assert Data({"a": [1, "b"]}).constant


@pytest.fixture
def users(tmp_path: Path) -> str:
    path = tmp_path / "users.csv"
    path.write_text('name,"the word"\nanna,"a, b"\nbert\n"c ""x""",d\n', encoding="utf-8-sig")
    return str(path)


def test_rows_of_a_file(users: str) -> None:
    assert heading(users) == ["name", "the word"]
    feeder = Feeder({"file": users, "rows": [], "order": "sequential"})
    rows = [feeder.row(number) for number in range(4)]
    assert [row and row["name"] for row in rows] == ["anna", "bert", 'c "x"', "anna"]
    assert [row and row["the word"] for row in rows] == ["a, b", "", "d", "a, b"]


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("name\n")
    with pytest.raises(ValueError, match="no rows"):
        heading(str(path))


def test_unique_rows_end_and_random_ones_do_not() -> None:
    rows = [{"n": 0}, {"n": 1}, {"n": 2}]
    unique = Feeder({"file": "", "rows": rows, "order": "unique"})
    assert [unique.row(number) for number in range(5)] == [*rows, None, None]
    drawn = Feeder({"file": "", "rows": rows, "order": "random"})
    found = [drawn.row(number) for number in range(200)]
    assert {row and row["n"] for row in found} == {0, 1, 2}


def test_what_is_drawn_follows_from_seed_and_turn_alone() -> None:
    feed = {"file": "", "rows": [{"n": n} for n in range(50)], "order": "random"}
    there, back = Feeder(feed, 7), Feeder(feed, 7)
    numbers = list(range(400))
    found = [there.row(number) for number in numbers]
    assert found == [back.row(number) for number in reversed(numbers)][::-1]
    assert found != [Feeder(feed, 8).row(number) for number in numbers]

    def value(seed: int, number: int) -> object:
        return Values({}, number, 0, Chance(seed, number))["random"]

    assert [value(7, n) for n in range(20)] == [value(7, n) for n in range(20)]
    assert len({value(seed, n) for seed in range(20) for n in range(20)}) == 400


def test_draws_are_spread_evenly() -> None:
    counts = [0] * 10
    for number in range(20_000):
        counts[Chance(3, number).below(10)] += 1
    assert sum((count - 2000) ** 2 / 2000 for count in counts) < 34, "chi square, p = 0.0001"
