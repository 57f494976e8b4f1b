"""Single decisions that are promised in words."""

from __future__ import annotations

from dataclasses import replace

from tests.agent.world import SECOND, World

from faultline.agent.decide import KEPT, MOST_KEPT, decide
from faultline.agent.model import Found, Tried
from faultline.api.host import HostStatus


def begun(uid: str = "a", **more: object) -> World:
    """A world in which one fault is active."""
    world = World()
    world.ask(uid, **more)
    world.settles()
    assert world.open == {uid}
    return world


def test_a_status_is_what_the_model_says() -> None:
    world = begun()
    world.ask("b", duration="nonsense")
    world.settles()
    told = HostStatus.model_validate(world.server["status"])
    assert {each.uid: each.stage for each in told.actual} == {"a": "active", "b": "refused"}
    assert "duration" in told.actual[1].error


def test_a_reboot_ends_an_entry() -> None:
    world = begun()
    world.reboots()
    world.settles()
    assert world.entry("a")["stage"] == "ended"
    assert world.injected == ["a"]


def test_a_lost_journal_is_no_proof_of_absence() -> None:
    world = begun()
    world.dies()
    world.journal.clear()
    world.starts()
    world.hears()
    world.looks()
    assert [(each.verb, each.uid) for each in world.decides()] == [("recover", "a")]
    world.works(("recover", "a"))
    world.decides()
    world.writes()
    assert world.entry("a")["stage"] == "ended"
    world.settles()
    assert world.injected == ["a"]


def test_the_container_that_follows_has_what_is_left_of_the_time() -> None:
    world = begun(follow=True)
    deadline = world.journal["a"].deadline
    world.target_ends("a")
    world.settles()
    assert world.journal["a.2"].deadline == deadline
    world.passes(100)
    world.settles()
    assert world.entry("a")["stage"] == "ended"
    assert world.injected == ["a", "a.2"]


def test_without_follow_it_ends_with_its_target() -> None:
    world = begun()
    world.target_ends("a")
    world.settles()
    assert world.entry("a")["end"] == "target gone"
    assert world.injected == ["a"]


def test_ended_by_the_lease_it_stays_ended() -> None:
    world = begun()
    world.reached = False
    world.passes(50)
    assert not world.open
    world.settles()
    entry = world.entry("a")
    assert (entry["stage"], entry["end"]) == ("ended", "recovered")
    assert "lease" in entry["note"]


def test_what_survives_ends_by_its_deadline() -> None:
    world = begun(survives=True)
    world.reached = False
    world.passes(30)
    world.decides()
    for key in list(world.running):
        world.works(key)
    assert world.open == {"a"}
    world.passes(40)
    assert not world.open


def test_it_can_be_read_for_a_while_how_it_ended() -> None:
    world = begun()
    world.retract("a")
    world.settles()
    assert world.entry("a")["end"] == "recovered"
    world.passes(KEPT)
    world.settles()
    assert not world.entry("a")


def test_few_are_kept() -> None:
    world = World()
    world.found = {
        f"u-{n}": Found(
            f"u-{n}", "ended", world.boot, 0, 0.0, ended=world.now + n / 100, end="recovered"
        )
        for n in range(MOST_KEPT + 10)
    }
    world.looked = True
    made = decide(world.server, {}, world.facts())
    assert len(made.status["actual"]) == MOST_KEPT
    assert made.status["actual"][0]["uid"] == "u-10"


def test_an_undo_that_failed_is_tried_again_and_asked_for() -> None:
    world = begun()
    world.found["a"] = replace(
        world.found["a"], state="ended", end="needs a person", note="rm /tmp/x"
    )
    world.tried["recover", "a"] = Tried(world.clock + 5 * SECOND, "")
    made = decide(world.server, world.status, world.facts())
    assert not made.actions
    assert made.wake == world.clock + 5 * SECOND
    clean = next(each for each in made.status["conditions"] if each["type"] == "Clean")
    assert (clean["status"], clean["reason"]) == ("False", "NeedsPerson")
    assert made.status["actual"][0]["note"] == "rm /tmp/x"
    world.clock += 6 * SECOND
    made = decide(world.server, world.status, world.facts())
    assert [each.verb for each in made.actions] == ["recover"]


def test_it_is_measured_again_while_there_was_nothing_to_measure_by() -> None:
    world = begun()
    reading = {"effect": "unmeasured", "asked": "x", "measured": "", "reason": "no traffic"}
    world.found["a"] = replace(world.found["a"], reading=reading)
    made = decide(world.server, world.status, world.facts())
    assert [each.verb for each in made.actions] == ["measure"]
    assert made.status["actual"][0]["text"] == "asked x (no traffic)"


def test_what_others_have_above_is_not_our_effect() -> None:
    world = begun()
    reading = {"effect": "already above", "asked": "50%", "measured": "80%"}
    world.found["a"] = replace(world.found["a"], reading=reading)
    made = decide(world.server, world.status, world.facts())
    assert made.status["actual"][0]["effect"] == "ineffective"


def test_since_when_is_kept() -> None:
    world = begun()
    before = world.status["conditions"]
    world.passes(5)
    made = decide(world.server, world.status, world.facts())
    assert made.status["conditions"] == before


def test_nothing_is_done_before_the_journal_has_been_read() -> None:
    world = begun()
    world.dies()
    world.starts()
    world.hears()
    assert not world.decides()
    assert world.status["actual"][0]["stage"] == "active"
    world.looks()
    assert not world.decides()


def test_what_comes_too_late_does_not_begin() -> None:
    world = World()
    world.ask("a", duration="60s")
    world.passes(61)
    world.settles()
    assert world.entry("a")["stage"] == "refused"
    assert "duration" in world.entry("a")["error"]
    assert not world.injected


def test_the_agent_undoes_too_when_the_lease_is_over() -> None:
    world = begun()
    world.ask("b", survives=True)
    world.settles()
    made = decide(world.server, world.status, replace(world.facts(), lease=False))
    assert [(each.verb, each.uid) for each in made.actions] == [("recover", "a")]
    ready = next(each for each in made.status["conditions"] if each["type"] == "Ready")
    assert ready["reason"] == "NoLease"


def test_without_a_lease_nothing_begins() -> None:
    world = World()
    world.ask("a")
    world.hears()
    world.looks()
    assert not world.decides()
    assert "cannot be reached" in world.status["actual"][0]["error"]


def test_what_is_to_be_undone_stays_until_it_is_taken_out() -> None:
    world = begun()
    world.marked("a")
    world.settles()
    assert not world.open
    world.passes(10 * KEPT)
    world.settles()
    assert world.entry("a")["end"] == "recovered"
    world.retract("a")
    world.settles()
    assert not world.entry("a")


def test_what_is_to_be_undone_is_not_begun() -> None:
    world = World()
    world.ask("a", undo=True)
    world.settles()
    assert (world.entry("a")["stage"], world.entry("a")["end"]) == ("ended", "nothing to undo")
    assert not world.injected


# ---------------------------------------------------------------------------- other addresses


def test_a_fault_goes_by_the_addresses_that_are_wanted_now() -> None:
    world = begun(params={"destination": ["10.0.0.1"], "percent": "10%"})
    world.readdress("a", destination=["10.0.0.2", "10.0.0.3"])
    world.settles()
    assert world.journal["a"].sides == {"destination": ["10.0.0.2", "10.0.0.3"]}
    assert (world.injected, world.undone) == (["a"], []), "it was never away"
    assert world.entry("a")["stage"] == "active"


def test_nothing_else_of_it_changes_and_no_side_is_added_or_taken() -> None:
    world = begun(params={"destination": ["10.0.0.1"], "percent": "10%"})
    for params in ({"percent": "90%"}, {"destination": []}, {"source": ["10.0.0.9"]}):
        world.readdress("a", **params)
        world.hears()
        assert world.decides() == []
        world.readdress("a", destination=["10.0.0.1"], source=[])


def test_an_agent_that_died_meanwhile_finds_it_out() -> None:
    world = begun(params={"source": ["10.0.0.1"]})
    world.readdress("a", source=["10.0.0.2"])
    world.hears()
    assert [each.verb for each in world.decides()] == ["readdress"]
    world.begins(("readdress", "a"))
    world.dies()
    world.settles()
    assert world.journal["a"].sides == {"source": ["10.0.0.2"]}
    assert world.injected == ["a"]


def test_what_is_to_be_undone_is_undone_and_not_readdressed() -> None:
    world = begun(params={"destination": ["10.0.0.1"]})
    world.readdress("a", destination=["10.0.0.2"])
    world.marked("a")
    world.hears()
    assert [each.verb for each in world.decides()] == ["recover"]


def test_the_container_that_follows_has_the_present_addresses() -> None:
    world = begun(follow=True, params={"destination": ["10.0.0.1"]})
    world.target_ends("a")
    world.readdress("a", destination=["10.0.0.2"])
    world.settles()
    assert world.journal["a.2"].sides == {"destination": ["10.0.0.2"]}
