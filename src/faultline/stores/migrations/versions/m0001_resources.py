"""Resources with a version for each change, and the deletions that a watcher may have missed."""

from __future__ import annotations

from faultline.stores.migrations.step import down, up
from faultline.stores.schema import Execute

revision = "1"
down_revision: str | None = None

UP = """
CREATE TABLE resources (
    kind {text} NOT NULL, name {text} NOT NULL, uid {text} NOT NULL,
    version {int} NOT NULL, generation {int} NOT NULL, created {real} NOT NULL,
    metadata {text} NOT NULL, spec {text} NOT NULL, status {text},
    PRIMARY KEY (kind, name)){keyed};
CREATE UNIQUE INDEX resources_version ON resources (version);
CREATE INDEX resources_created ON resources (kind, created DESC, name DESC);
CREATE TABLE deletions (version {int} PRIMARY KEY, kind {text}, name {text});
CREATE TABLE counter ("only" {int} PRIMARY KEY CHECK ("only" = 1), version {int});
CREATE TABLE horizon ("only" {int} PRIMARY KEY CHECK ("only" = 1), version {int});
INSERT INTO counter VALUES (1, 0);
INSERT INTO horizon VALUES (1, 0);
"""
DOWN = """
DROP TABLE horizon;
DROP TABLE counter;
DROP TABLE deletions;
DROP TABLE resources;
"""


def fill(execute: Execute) -> None:
    """Nothing was there."""


def empty(execute: Execute) -> None:
    """Nothing will be there."""


def upgrade() -> None:
    """What Alembic calls."""
    up(revision)


def downgrade() -> None:
    """What Alembic calls."""
    down(revision)
