"""Which runs are kept. A run that has not ended is never removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from faultline.errors import UnknownName
from faultline.stores.model import Filter, Stale, Store, Summary

KIND = "Run"
GOOD = "held"  # the verdict of a run that needs no second look


@dataclass(frozen=True, slots=True)
class Retention:
    """A run goes when no rule keeps it; a policy without any rule keeps everything."""

    keep: int | None = None
    """The newest of each experiment that are kept."""
    older_than: float | None = None
    """Seconds since its end that every run is kept."""
    keep_failed: float | None = None
    """Seconds that a run is kept whose verdict is another one than `held`."""

    def surplus(self, runs: Iterable[Summary], now: float) -> list[Summary]:
        """Those that no rule keeps, newest first. `now` is in seconds since 1970."""
        if self.keep is None and self.older_than is None:
            return []
        found: list[Summary] = []
        seen = Counter[str]()
        for run in sorted(runs, key=lambda each: (each.created, each.name), reverse=True):
            if run.ended is None:
                continue
            seen[run.experiment] += 1
            age = now - run.ended
            failed = run.verdict != GOOD
            kept = (
                (self.keep is not None and seen[run.experiment] <= self.keep)
                or (self.older_than is not None and age < self.older_than)
                or (failed and self.keep_failed is not None and age < self.keep_failed)
            )
            if not kept:
                found.append(run)
        return found


def surplus(store: Store, policy: Retention, now: float) -> list[Summary]:
    """The runs of a store that the policy does not keep."""
    return policy.surplus(store.summaries(KIND, Filter(ended=True)), now)


def remove(store: Store, runs: Iterable[Summary]) -> list[Summary]:
    """Remove them, unless somebody wrote one of them meanwhile; those that were."""
    removed: list[Summary] = []
    for run in runs:
        try:
            store.delete(run.kind, run.name, run.version)
        except (Stale, UnknownName):
            continue
        removed.append(run)
    return removed
