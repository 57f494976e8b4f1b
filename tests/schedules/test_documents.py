"""What a schedule may say: each mistake is refused with the path of its field."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.schedules.samples import utc

from faultline.api.calendar import Calendar
from faultline.api.document import parse, parse_all
from faultline.api.kinds import read_resource
from faultline.api.schedule import Schedule
from faultline.engine import schedule_edits, schedules
from faultline.engine.calendar import occurrences
from faultline.errors import InvalidDocument

ROOT = Path(__file__).resolve().parents[2]

TEXT = """
apiVersion: faultline.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  experiment: checkout
  parameters: {latency: 100ms}
  when:
    cron: ["30 2 * * MON-FRI", "@weekly"]
  timeZone: Europe/Berlin
  calendars:
    - holidays
    - timeZone: UTC
      working:
        - {days: [mon, tue], from: 09:00, to: 17:00}
      freeze:
        - {from: 2026-12-20, to: 2027-01-03, why: end of the year}
        - {from: 12-24, to: 12-26}
        - {dates: [2026-05-01, 10-03]}
  onFreeze: delay
  jitter: 5m
  concurrency: replace
  missed: all
  missedLimit: 3
  startingDeadline: 1h
  history: {succeeded: 1, failed: 2}
"""


def document(**spec: Any) -> dict[str, Any]:
    data = parse(TEXT)
    return {**data, "spec": {**data["spec"], **spec}}


def test_a_schedule_is_read_and_survives_json() -> None:
    made = read_resource(parse(TEXT))
    assert isinstance(made, Schedule)
    assert read_resource(made.to_json()) == made
    working = made.spec.calendars[1].working[0]
    assert (working.begin, working.end) == ("09:00", "17:00")
    assert made.spec.calendars[0].name == "holidays"
    assert made.spec.when.lines == ["30 2 * * MON-FRI", "0 0 * * 0"]


def test_times_of_day_in_yaml_are_text_and_numbers_are_numbers() -> None:
    text = "a: 17:00\nb: 09:00\nc: 2026-12-20\nd: 12\ne: 1.5\nf: -3\ng: 0x1f\nh: 1:30.5\ni: 1.0e+3"
    assert parse(text) == {
        "a": "17:00", "b": "09:00", "c": "2026-12-20", "d": 12, "e": 1.5, "f": -3, "g": 31,
        "h": "1:30.5", "i": 1000.0,
    }  # fmt: skip


def test_a_file_may_hold_several_documents() -> None:
    assert parse_all("# first\n---\na: 1\n--- # second\nb: |\n  ---\n  c\n---\n") == [
        {"a": 1},
        {"b": "---\nc\n"},
    ]
    with pytest.raises(InvalidDocument, match="file, document 2"):
        parse_all("a: 1\n---\n- b\n", "file")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"when": {}}, "spec.when: expected exactly one of cron, every, at"),
        ({"when": {"every": "1m", "at": "2026-01-01"}}, "spec.when: expected exactly one"),
        ({"when": {"cron": "* * *"}}, "spec.when.cron: .* is not accepted; expected 5 fields"),
        ({"when": {"cron": "61 * * * *"}}, "Bad minute"),
        ({"when": {"cron": ["0 0 * * *", "x"]}}, "spec.when.cron: 'x': expected 5 fields"),
        ({"when": {"cron": []}}, "spec.when.cron: expected at least one line"),
        ({"when": {"cron": "0 0 30 2 *"}}, "spec.when.cron"),
        ({"when": {"cron": "@every 5m"}}, "expected `every: DURATION` in place of @every"),
        ({"when": {"every": "1500ms"}}, "spec.when.every: .*expected whole seconds"),
        ({"when": {"every": "5"}}, "spec.when.every"),
        ({"when": {"at": "tomorrow"}}, "spec.when.at: 'tomorrow' is not accepted; expected a time"),
        ({"when": {"cron": "@daily", "anchor": "2026-01-01"}}, "`anchor` only with `every`"),
        ({"timeZone": "Europe/Nowhere"}, "spec.timeZone: .*expected an IANA time zone"),
        ({"timeZone": "../../etc/passwd"}, "spec.timeZone: .*expected an IANA time zone"),
        ({"calendars": [{}]}, "spec.calendars.0: expected the name of a Calendar"),
        ({"calendars": [{"freeze": [{}]}]}, "spec.calendars.0.freeze.0: expected `from` and `to`"),
        ({"calendars": [{"freeze": [{"from": "25:00"}]}]}, "spec.calendars.0.freeze.0.from"),
        ({"calendars": [{"freeze": [{"from": "09:00", "to": "2026-01-01"}]}]}, "the same form"),
        ({"calendars": [{"freeze": [{"from": "02-30", "to": "03-01"}]}]}, "freeze.0.from"),
        ({"calendars": [{"freeze": [{"from": "12-20"}]}]}, "both `from` and `to`"),
        ({"calendars": [{"freeze": [{"from": "09:00", "to": "09:00"}]}]}, "two different times"),
        ({"calendars": [{"freeze": [{"days": ["mon"], "dates": ["05-01"]}]}]}, "not both"),
        ({"calendars": [{"freeze": [{"from": "12-20", "to": "12-24", "days": ["mon"]}]}]}, "hours"),
        ({"calendars": [{"working": [{"days": ["monday"]}]}]}, "working.0.days.0"),
        ({"calendars": [{"working": [{"dates": ["05-40"]}]}]}, "working.0.dates.0"),
        ({"concurrency": "queue"}, "spec.concurrency"),
        ({"missedLimit": 0}, "spec.missedLimit: .*expected 1 to 100"),
        ({"experiment": {"name": "a b"}}, "spec.experiment.name"),
        ({"jitter": "5"}, "spec.jitter"),
        ({"every": "5m"}, "spec.every: no such field"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_field(spec: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidDocument, match=complaint):
        read_resource(document(**spec))


def test_a_name_leaves_room_for_the_occurrence() -> None:
    data = document()
    data["metadata"] = {"name": "x" * 201}
    with pytest.raises(InvalidDocument, match="at most 200 characters"):
        read_resource(data)


def test_the_example_of_the_documentation_is_right(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "nightly.yaml").write_text(example)
    shutil.copy(ROOT / "examples" / "slow-network.yaml", tmp_path)
    calendar, schedule = schedule_edits.read(tmp_path / "nightly.yaml")
    assert isinstance(calendar, Calendar)
    assert isinstance(schedule, Schedule)
    known = {calendar.metadata.name: calendar.spec}
    first = next(occurrences(schedule, utc("2026-12-18T12:00"), known))
    assert first.skipped == "freeze: end of the year"
    assert experiment_of(schedule) == "slow-network"


def experiment_of(schedule: Schedule) -> str:
    store: Any = None  # the experiment stands in the schedule
    return schedules.resolved(store, schedule).metadata.name
