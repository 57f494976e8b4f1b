"""A load as the engine sees it, whoever sends: our own generators or another tool."""

from __future__ import annotations

from typing import Protocol, Self

from faultline.api.traffic import TrafficBase, TrafficFigures, TrafficSecond, TrafficStatus


class Running(Protocol):
    """One load. Figures may be read from any thread, also after its end."""

    @property
    def spec(self) -> TrafficBase: ...

    @property
    def running(self) -> bool:
        """Whether it still sends or waits for answers."""
        ...

    @property
    def failure(self) -> str:
        """Why it ended before its time, with figures missing; '' if it did not."""
        ...

    def start(self) -> Self:
        """Start it and return once it sends; raises ApplyFailed, and leaves nothing then."""
        ...

    def seconds(self, after: float = 0.0) -> list[TrafficSecond]:
        """The complete seconds that began later than `after` (unix time), oldest first."""
        ...

    def snapshot(self, seconds: float = 5.0) -> TrafficFigures:
        """The last complete seconds, warm-up or not; raises ObserveFailed if it has failed."""
        ...

    def totals(self) -> TrafficFigures:
        """All of it after warm-up."""
        ...

    def finish(self, within: float) -> TrafficStatus:
        """Send no more, wait up to `within` seconds for answers under way, then stop."""
        ...

    def stop(self) -> TrafficStatus:
        """Stop at once, leave no process, and give the result. Idempotent."""
        ...
