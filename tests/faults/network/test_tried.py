"""What was tried of the kernel is kept until something changes that it may depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from faultline.injection import tried
from faultline.kernel import userns
from faultline.kernel.features import Features

FOUND = Features(frozenset({"clsact"}), {"netem": "Specified qdisc kind is unknown"})


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Features]:
    """What trying finds, first to last; each is taken once. Kept in a folder of the test."""
    answers: list[Features] = []
    (tmp_path / "private").mkdir(mode=0o700)
    monkeypatch.setattr(tried, "memory_folder", lambda: tmp_path / "private")
    monkeypatch.setattr(tried, "check_trust", lambda _: None)
    monkeypatch.setattr(tried.features, "probe_features", lambda: answers.pop(0))
    monkeypatch.setattr(userns, "current", lambda: userns.INITIAL)
    return answers


def test_it_is_tried_once(trials: list[Features]) -> None:
    trials.append(FOUND)
    assert tried.known() == FOUND
    assert tried.known() == FOUND


@pytest.mark.parametrize("part", ["_modules", "_text"])
def test_it_is_tried_again_when_something_has_changed(
    part: str, trials: list[Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = Features(frozenset({"clsact", "netem"}), {})
    trials += [FOUND, more]
    assert tried.known() == FOUND
    monkeypatch.setattr(tried, part, lambda _: "another")
    assert tried.known() == more


def test_it_is_tried_again_when_asked_for(trials: list[Features]) -> None:
    more = Features(frozenset({"clsact", "netem"}), {})
    trials += [FOUND, more]
    tried.known()
    assert tried.anew() == more
    assert tried.known() == more


def test_what_failed_for_want_of_room_is_not_kept(trials: list[Features]) -> None:
    poor = Features(frozenset(), {"bpf": "Cannot allocate memory"})
    trials += [poor, FOUND]
    assert tried.known() == poor
    assert tried.known() == FOUND


@pytest.mark.parametrize("text", ["", "[]", '{"conditions": []}', "no JSON"])
def test_what_is_kept_and_cannot_be_read_counts_for_nothing(
    text: str, trials: list[Features], tmp_path: Path
) -> None:
    (tmp_path / "private" / "features").write_text(text)
    trials.append(FOUND)
    assert tried.known() == FOUND


def test_where_nothing_can_be_kept_it_is_tried_each_time(
    trials: list[Features], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "memory_folder", lambda: tmp_path / "absent")
    trials += [FOUND, FOUND]
    assert tried.known() == tried.known() == FOUND
    assert not trials
