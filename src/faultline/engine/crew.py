"""Carries out many runs with a few threads: each takes the run that is due, and steps it once.

Between its steps a run is an entry in a heap and holds no thread. Runs with a fault in place come
before those without; what they wait for is done by other threads (`hands.py`).
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

from faultline.api.run import Stage
from faultline.engine.driver import Driver
from faultline.engine.hands import Hands
from faultline.engine.model import SECOND, Action, Do, Result
from faultline.kernel import clock

THREADS = 4
"""How many runs are stepped at the same time: their writes go to disk together."""
SHORT = frozenset({Do.ADMIT, Do.PROBE, Do.WATCH, Do.COLLECT, Do.START_TRAFFIC, Do.NOTIFY})
"""What is short as a rule, and may wait a little for others. An undo never does."""
TURNS = 4
"""So many runs with a fault in place are stepped before one without gets its turn."""


class _Member:
    """One run of those that are carried out."""

    def __init__(self, name: str, steps: Generator[Driver]) -> None:
        self.name = name
        self.steps = steps
        self.driver: Driver | None = None
        self.first = False  # it has a fault in place
        self.stepping = False
        self.ready = False
        self.called = False  # while it was stepped something happened
        self.entry = 0  # its latest one in the heap; the others no longer count


class Crew:
    """The runs that are carried out, until each has come to its end."""

    def __init__(self, threads: int = THREADS) -> None:
        self._hands = Hands()
        self._changed = threading.Condition()
        self._members: dict[str, _Member] = {}
        self._ready: tuple[deque[_Member], deque[_Member]] = (deque(), deque())
        self._heap: list[tuple[int, int, _Member]] = []
        self._entries = self._turns = 0
        self._closing = False
        for _ in range(threads):
            self._begin()

    def _begin(self) -> None:
        threading.Thread(target=self._work, name="faultline crew", daemon=True).start()

    def add(self, name: str, steps: Generator[Driver]) -> None:
        """Carry out one more: go through its steps, and give its driver rest between them."""
        with self._changed:
            self._members[name] = member = _Member(name, steps)
            self._make_ready(member)

    def prepare(self, driver: Driver) -> None:
        """Say how its actions are begun; to be called before its first step."""
        member = self._members[driver.name]
        driver.begin = self._set_to_work
        driver.wake = partial(self._call, member)

    def close(self) -> None:
        """Step nothing any more, and leave what is under way as it is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(m.stepping for m in self._members.values()), 5)
            left = [each for each in self._members.values() if not each.stepping]
            self._members.clear()
        leaving = threading.Thread(target=_leave, args=(left,), daemon=True)
        leaving.start()
        leaving.join(5)  # what hangs when it is let go of does not hold up the end

    def _set_to_work(
        self,
        action: Action,
        work: Callable[[], Result | None],
        tell: Callable[[Result | None], None],
    ) -> None:
        self._hands.do(lambda: tell(work()), at_once=action.do not in SHORT)

    # ------------------------------------------------------------------ whose turn it is

    def _call(self, member: _Member) -> None:
        with self._changed:
            if member.stepping:
                member.called = True
            elif not member.ready and self._members.get(member.name) is member:
                self._make_ready(member)

    def _make_ready(self, member: _Member) -> None:
        member.ready, member.entry = True, 0
        self._ready[not member.first].append(member)
        self._changed.notify()

    def _rest(self, member: _Member, wake_ns: int) -> None:
        self._entries += 1
        member.entry = self._entries
        heapq.heappush(self._heap, (wake_ns, self._entries, member))
        if self._heap[0][1] == self._entries:
            self._changed.notify()  # somebody sleeps until a later one

    def _next(self) -> _Member | None:
        """The run whose turn it is, as soon as there is one; None when all is to end."""
        with self._changed:
            while not self._closing:
                wait = self._due()
                first, others = self._ready
                self._turns = (self._turns + 1) % (TURNS + 1)
                chosen = first if first and (self._turns or not others) else others or first
                if chosen:
                    member = chosen.popleft()
                    member.ready, member.stepping, member.called = False, True, False
                    return member
                self._changed.wait(wait)
            return None

    def _due(self) -> float | None:
        """Make ready what is due; the seconds until the next one."""
        now = clock.now()
        while self._heap:
            due, entry, member = self._heap[0]
            if entry == member.entry and due > now:
                return (due - now) / SECOND
            heapq.heappop(self._heap)
            if entry == member.entry and not member.ready and not member.stepping:
                self._make_ready(member)
        return None

    # ------------------------------------------------------------------ steps

    def _work(self) -> None:
        try:
            while (member := self._next()) is not None:
                self._turn(member)
        finally:
            with self._changed:
                if not self._closing:  # of what nobody foresaw only this thread ends
                    self._begin()

    def _turn(self, member: _Member) -> None:
        ended = True
        try:
            ended = self._step(member)
        finally:
            with self._changed:
                member.stepping = False
                if ended:
                    self._members.pop(member.name, None)
                elif member.called:
                    self._make_ready(member)
                elif member.driver is not None:
                    self._rest(member, member.driver.wake_ns)
                if self._closing:
                    self._changed.notify_all()

    def _step(self, member: _Member) -> bool:
        """Step it once; whether it was the last time."""
        if member.driver is not None:
            member.driver.hear()
        for driver in member.steps:
            member.driver = driver
            member.first = any(
                Stage.WAITING.rank < fault.stage.rank < Stage.ENDED.rank
                for fault in driver.carrying.run.status.faults
            )
            return False
        return True


def _leave(members: list[_Member]) -> None:
    for each in members:
        each.steps.close()
