"""What the worker of a fault publishes while it works."""

from __future__ import annotations

from typing import Any

from faultline.changes.model import Record
from faultline.workers import figures


def figures_of(record: Record, step: int = 0) -> dict[str, Any]:
    """The newest figures of a step whose worker says with `ready` where they are; {} if none."""
    path = record.steps[step].made.get("ready", {}).get("stats", "")
    return (figures.read(path) if path else None) or {}
