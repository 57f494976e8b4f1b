"""What lists show of a resource, its series beside its status, and who carries it out.

`fill` and `empty` work on the documents as they were then, not through models that move on.
"""

from __future__ import annotations

import json
from typing import Any

from faultline.stores.migrations.step import down, up
from faultline.stores.schema import Execute

revision = "2"
down_revision: str | None = "1"

UP = """
CREATE TABLE summaries (
    kind {text} NOT NULL, name {text} NOT NULL, uid {text} NOT NULL,
    version {int} NOT NULL, written {int} NOT NULL, created {real} NOT NULL,
    started {real}, ended {real}, experiment {text} NOT NULL, creator {text} NOT NULL,
    phase {text} NOT NULL, verdict {text} NOT NULL, reason {text} NOT NULL,
    labels {text} NOT NULL, about {text} NOT NULL, told {text} NOT NULL,
    PRIMARY KEY (kind, name)){keyed};
CREATE INDEX summaries_created ON summaries (kind, created, name);
CREATE INDEX summaries_experiment ON summaries (kind, experiment, created, name);
CREATE INDEX summaries_open ON summaries (kind, created, name) WHERE ended IS NULL;
CREATE TABLE labels (
    kind {text} NOT NULL, label {text} NOT NULL, value {text} NOT NULL, name {text} NOT NULL,
    PRIMARY KEY (kind, label, value, name)){keyed};
CREATE INDEX labels_name ON labels (kind, name);
CREATE TABLE series (
    kind {text} NOT NULL, name {text} NOT NULL, path {text} NOT NULL, part {int} NOT NULL,
    entries {text} NOT NULL,
    PRIMARY KEY (kind, name, path, part)){keyed};
CREATE TABLE leases (
    kind {text} NOT NULL, name {text} NOT NULL, fence {int} NOT NULL,
    holder {text}, epoch {text}, expires {real},
    PRIMARY KEY (kind, name)){keyed};
CREATE INDEX leases_holder ON leases (holder)
"""
DOWN = """
DROP TABLE leases;
DROP TABLE series;
DROP TABLE labels;
DROP TABLE summaries;
"""
_MARKS = ", ".join("?" * 16)


def fill(execute: Execute) -> None:
    """Summaries, labels and leases of what is there. Series stay in the status until it is written
    the next time.
    """
    keys = execute("SELECT kind, name FROM resources", ())
    for key in keys:
        ((uid, version, created, metadata, spec, status),) = execute(
            "SELECT uid, version, created, metadata, spec, status FROM resources"
            " WHERE kind = ? AND name = ?",
            key,
        )
        labels: dict[str, str] = json.loads(metadata)["labels"]
        execute(
            f"INSERT INTO summaries VALUES ({_MARKS})",  # noqa: S608 (a constant)
            (*key, uid, version, version, created, *_told(key[1], labels, spec, status)),
        )
        for label, value in labels.items():
            pair = (json.dumps(label), json.dumps(value))
            execute("INSERT INTO labels VALUES (?, ?, ?, ?)", (key[0], *pair, key[1]))
        execute("INSERT INTO leases VALUES (?, ?, 0, NULL, NULL, NULL)", key)


def _told(name: str, labels: dict[str, str], spec: str, status: str | None) -> tuple[Any, ...]:
    wanted: dict[str, Any] = json.loads(spec)
    is_now: dict[str, Any] = json.loads(status) if status else {}
    experiment, creator = (_plain(wanted.get(key)) for key in ("experiment", "creator"))
    phase, verdict, reason = (_plain(is_now.get(key)) for key in ("phase", "verdict", "reason"))
    about = "\n".join([name, experiment, creator, *map(_plain, [*labels, *labels.values()])])
    return (
        is_now.get("started"), is_now.get("ended"), experiment, creator, phase, verdict, reason,
        json.dumps(labels), about.casefold(), f"{verdict}\n{reason}".casefold(),
    )  # fmt: skip


def _plain(value: object) -> str:
    """Text that every database takes."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def empty(execute: Execute) -> None:
    """Put the series back into the status."""
    for kind, name in execute("SELECT DISTINCT kind, name FROM series", ()):
        key = (kind, name)
        ((text,),) = execute("SELECT status FROM resources WHERE kind = ? AND name = ?", key)
        status: Any = json.loads(text)
        for path, entries in execute(
            "SELECT path, entries FROM series WHERE kind = ? AND name = ? ORDER BY path, part", key
        ):
            *above, last = (int(step) if step.isdigit() else step for step in path.split("/"))
            here: Any = status
            for step in above:
                here = here[step]
            here[last] = [*here.get(last, []), *json.loads(entries)]
        execute(
            "UPDATE resources SET status = ? WHERE kind = ? AND name = ?",
            (json.dumps(status), *key),
        )


def upgrade() -> None:
    """What Alembic calls."""
    up(revision)


def downgrade() -> None:
    """What Alembic calls."""
    down(revision)
