"""A store in memory that dies, is overtaken and forgets on demand, and the runs in it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from faultline.api.model import Resource
from faultline.api.run import Phase, Run, Verdict
from faultline.errors import UnknownName
from faultline.stores.model import Exists, Filter, Stale, Summary


class Died(BaseException):
    """The engine was killed."""


class MemoryStore:
    """What schedules need of a store. `before` and `after` are called around every write."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}
        self.version = 0
        self.made: Counter[str] = Counter()
        self.now: Callable[[], float] = lambda: 0.0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def get(self, kind: type[Any], name: str) -> Any:
        try:
            return self.kept[kind.__name__, name]
        except KeyError:
            raise UnknownName(f"there is no {kind.__name__} {name!r}") from None

    def list(self, kind: type[Any], labels: dict[str, str] | None = None) -> list[Any]:
        wanted = (labels or {}).items()
        return [each for (known, _), each in self.kept.items()
                if known == kind.__name__ and wanted <= each.metadata.labels.items()]  # fmt: skip

    def summaries(
        self, kind: type[Any], where: Filter | None = None, limit: int | None = None
    ) -> list[Summary]:
        where = where or Filter()
        if kind is not Run:
            return []
        return [
            Summary("Run", run.metadata.name, "", 0, run.metadata.creation_timestamp, None,
                    run.status.ended, run.spec.experiment, "", str(run.status.phase),
                    str(run.status.verdict or ""), run.status.reason, run.metadata.labels)
            for run in self.list(kind, where.labels)
        ]  # fmt: skip

    def _put(self, resource: Resource) -> Any:
        self.version += 1
        meta = resource.metadata.model_copy(update={"resource_version": self.version})
        made = resource.model_copy(update={"metadata": meta})
        self.kept[resource.kind, meta.name] = made
        return made

    def create(self, resource: Any, given: Any = None) -> Any:
        self.before()
        if given is not None and self.get(type(given), given.metadata.name) != given:
            raise Stale("written meanwhile")
        name = resource.metadata.name
        if (resource.kind, name) in self.kept:
            raise Exists(f"there is a {resource.kind} {name!r} already")
        self.made[name] += 1
        meta = resource.metadata.model_copy(update={"creation_timestamp": self.now()})
        made = self._put(resource.model_copy(update={"metadata": meta}))
        self.after()
        return made

    def update(self, resource: Any) -> Any:
        self.before()
        known = self.get(type(resource), resource.metadata.name)
        if known.metadata.resource_version != resource.metadata.resource_version:
            raise Stale("written meanwhile")
        made = self._put(resource)
        self.after()
        return made

    write_status = update

    def delete(self, kind: type[Any], name: str) -> None:
        self.before()
        self.get(kind, name)
        del self.kept[kind.__name__, name]
        self.after()

    # ------------------------------------------------------------------ runs

    def runs(self) -> list[Run]:
        return self.list(Run)

    def active(self) -> list[Run]:
        return [run for run in self.runs() if run.status.phase is not Phase.ENDED]

    def end(self, run: Run, verdict: Verdict) -> None:
        ended = run.status.model_copy(
            update={"phase": Phase.ENDED, "verdict": verdict, "ended": self.now()}
        )
        self._put(run.model_copy(update={"status": ended}))


def sometimes(chance: random.Random, odds: float) -> Callable[[], None]:
    def maybe() -> None:
        if chance.random() < odds:
            raise Died

    return maybe
