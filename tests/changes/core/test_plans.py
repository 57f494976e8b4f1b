"""A plan is carried out as it was read, or not at all; halt stops everything until it is lifted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lifeground import Ground, answer, faultline

from faultline.changes import halt, undo
from faultline.changes.model import End, State
from faultline.errors import Halted, InvalidDocument, InvalidParameter, PlanStale
from faultline.injection import trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order, Plan
from faultline.units import Duration


def test_a_plan_touches_nothing_and_a_saved_one_is_read_back(ground: Ground) -> None:
    with ground.injector() as injector:
        made = injector.plan(ground.order())
        assert ground.names() == ["kept"]
        assert injector.query() == []
        again = Plan.from_json(json.loads(json.dumps(made.to_json())))
        assert again.to_json() == made.to_json()
        assert again.steps[0].does
        assert again.steps[0].undo


def test_a_saved_plan_is_applied_as_it_says(ground: Ground, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = ["file", "add", "--path", str(ground.target), "--content", "ours", "-t", "1m"]
    assert (
        faultline(ground.state, "plan", *words, "--uid", "saved", "-o", str(file)).returncode == 0
    )
    applied = answer(faultline(ground.state, "apply", str(file), "--format", "json"))
    assert applied["uid"] == "saved"
    assert ground.target.read_text() == "ours"
    with ground.injector() as injector:
        assert injector.recover("saved").end is End.RECOVERED


def test_a_saved_plan_of_packets_is_applied_although_json_knows_no_tuples(
    ground: Ground,
) -> None:
    params = {"interface": "lo", "percent": "10%", "destination": ["10.0.0.0/8", "fc00::/7"]}

    def act() -> list[str]:
        said: list[str] = []
        with Injector(ground.state) as injector:
            order = Order("network.loss", params, Duration.parse("1m"))
            saved = Plan.from_json(json.loads(json.dumps(injector.plan(order).to_json())))
            made = injector.apply(saved)
            said.append(str(made.state))
            said.append(str(injector.recover(made.uid).end))
        return said

    assert trial.in_child(act) == ["active", "recovered"]


def test_a_plan_from_another_namespace_is_stale(ground: Ground) -> None:
    with ground.injector() as injector:
        saved = injector.plan(ground.order()).to_json()

    def act() -> str:
        with Injector(ground.state) as injector:
            try:
                injector.apply(Plan.from_json(saved))
            except PlanStale as error:
                return error.message
        return "it was applied"

    assert "network namespace" in trial.in_child(act)
    assert ground.names() == ["kept"]


@pytest.mark.parametrize(
    ("name", "value"), [("boot_id", "another boot"), ("user", 12345), ("netns_cookie", 1)]
)
def test_a_plan_is_stale_when_the_world_has_moved(name: str, value: object, ground: Ground) -> None:
    with ground.injector() as injector:
        saved = injector.plan(ground.order()).to_json()
        saved["place"][name] = value
        with pytest.raises(PlanStale):
            injector.apply(Plan.from_json(saved))
        assert injector.query() == []
    assert ground.names() == ["kept"]


def test_a_plan_whose_changes_were_edited_is_not_carried_out(ground: Ground) -> None:
    with ground.injector() as injector:
        saved = injector.plan(ground.order()).to_json()
        saved["changes"][0]["spec"]["path"] = "/etc/passwd"
        with pytest.raises(PlanStale, match="/etc/passwd"):
            injector.apply(Plan.from_json(saved))


def test_what_is_no_plan_is_refused(ground: Ground) -> None:
    with ground.injector() as injector:
        good = injector.plan(ground.order()).to_json()
    for name in good:
        optional = ("engine", "others", "exempt", "allow", "notes", "creator", "made", "seed")
        if name in optional:
            continue
        with pytest.raises((InvalidDocument, InvalidParameter)):
            Plan.from_json({key: value for key, value in good.items() if key != name})
    with pytest.raises(InvalidDocument, match="schema"):
        Plan.from_json({**good, "schema": 99})
    with pytest.raises(InvalidParameter):
        Plan.from_json({**good, "uid": "../../x"})
    with pytest.raises(InvalidParameter):
        Plan.from_json({**good, "duration": "9999d"})


@pytest.mark.parametrize("uid", ["a", "../x", "a/b", "a b", "-x", "a:b", "x" * 64, "a..b", "ä1"])
def test_a_uid_that_could_be_a_path_or_a_mark_is_refused(uid: str, ground: Ground) -> None:
    with ground.injector() as injector, pytest.raises(InvalidParameter, match="uid"):
        injector.plan(ground.order(uid=uid))


@pytest.mark.parametrize("duration", ["99ms", "8d"])
def test_every_fault_has_an_end_within_bounds(duration: str, ground: Ground) -> None:
    order = Order("file.add", {"path": str(ground.target)}, Duration.parse(duration))
    with ground.injector() as injector, pytest.raises(InvalidParameter, match="duration"):
        injector.plan(order)


# ---------------------------------------------------------------------------------------- halt


def test_halt_undoes_everything_and_refuses_more_until_it_is_lifted(ground: Ground) -> None:
    with ground.injector() as injector:
        for number in range(3):
            injector.inject(ground.order(uid=f"n{number}", name=f"file{number}"))
    halted = faultline(ground.state, "halt", "the", "--format", "json")
    assert halted.returncode == 0, halted
    assert ground.names() == ["kept"]
    with ground.injector() as injector:
        assert {each.end for each in injector.query()} == {End.RECOVERED}
        with pytest.raises(Halted, match="the") as raised:
            injector.inject(ground.order())
        assert raised.value.exit_code == 3
        injector.lift()
        made = injector.inject(ground.order())
        assert injector.recover(made.uid).end is End.RECOVERED


def test_a_halt_that_comes_while_a_fault_is_on_its_way_stops_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The halt was not there when the injection began, and found nothing in the journal."""
    capture = undo.capture

    def halted_meanwhile(*given: object) -> None:
        capture(*given)  # type: ignore[arg-type]
        with ground.injector() as other:
            assert other.halt("now") == []

    monkeypatch.setattr(undo, "capture", halted_meanwhile)
    with ground.injector() as injector:
        with pytest.raises(Halted):
            injector.inject(ground.order(uid="late"))
        assert injector.get("late").state is State.ENDED
        assert injector.get("late").end is End.NOTHING
    assert ground.names() == ["kept"]


def test_halt_stops_what_is_there_where_it_cannot_even_be_written(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> Path:
        raise OSError(28, "No space left on device")

    with ground.injector() as injector:
        injector.inject(ground.order())
        with monkeypatch.context() as patch:
            patch.setattr(halt, "for_good", fails)
            assert [each.end for each in injector.halt("full")] == [End.RECOVERED]
        assert ground.names() == ["kept"]
        with pytest.raises(Halted):
            injector.check_halt()
