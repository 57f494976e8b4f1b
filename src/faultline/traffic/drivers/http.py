"""HTTP: single requests, or scenarios chosen by their weights."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

from faultline.traffic.driver import Turn
from faultline.traffic.drivers.http_steps import Session, Step
from faultline.traffic.model import Load


class _Scenario:
    """Steps, one after the other."""

    def __init__(self, options: Mapping[str, Any], base: str, headers: Mapping[str, str]) -> None:
        self.name: str = options["name"]
        self._goes_on: bool = options["continue_on_failure"]
        self._steps = [Step(each, base, headers) for each in options["steps"]]

    async def run(self, turn: Turn, session: Session) -> None:
        failed = False
        for step in self._steps:
            await turn.pause(step.think)
            if turn.over:
                return  # as a whole it was neither good nor bad
            failed = bool(await turn.ask(f"{self.name}/{step.label}", _work(step, turn, session)))
            if failed and not self._goes_on:
                break
        turn.whole(self.name, good=not failed)


def _work(step: Step, turn: Turn, session: Session) -> Callable[[], Any]:
    async def work() -> str:
        answer = await session.exchange(step.request_of(turn))
        return step.judge(answer, turn.values)

    return work


class Driver:
    """Sends over aiohttp, or over h2 where HTTP/2 is asked for."""

    def __init__(self, load: Load) -> None:
        options = load.options
        headers: dict[str, str] = options["headers"]
        base = options["base_url"] or ""
        self._scenarios = [_Scenario(each, base, headers) for each in options["scenarios"]]
        self._weights = list(accumulate(each["weight"] for each in options["scenarios"]))
        self._single = None if self._scenarios else Step(options, "", {})
        self._cookies: bool = bool(self._scenarios) and options["cookies"]
        self._users: dict[int, Session] = {}  # of the closed model
        if options["http2"]:
            from faultline.traffic.drivers.http2 import Client
        else:
            from faultline.traffic.drivers.http1 import Client
        self._client = Client(load)
        self.errors: tuple[type[Exception], ...] = Client.errors
        self._session: Session | None = None  # of all, where nobody has cookies

    async def open(self) -> None:
        await self._client.open()
        self._session = self._client.session(cookies=False)

    async def turn(self, turn: Turn) -> None:
        if self._single:
            await turn.ask("", lambda: self._once(turn))
            return
        drawn = turn.chance.random() * self._weights[-1]
        scenario = self._scenarios[bisect(self._weights, drawn, 0, len(self._weights) - 1)]
        session = self._session_of(turn)
        try:
            await scenario.run(turn, session)
        finally:
            if self._cookies and turn.user < 0:
                session.close()

    async def _once(self, turn: Turn) -> str:
        assert self._single
        assert self._session
        return self._single.judge(await self._session.exchange(self._single.request_of(turn)), None)

    def _session_of(self, turn: Turn) -> Session:
        assert self._session
        if not self._cookies:
            return self._session
        if turn.user < 0:
            return self._client.session(cookies=True)
        if turn.user not in self._users:
            self._users[turn.user] = self._client.session(cookies=True)
        return self._users[turn.user]

    def kind(self, error: Exception) -> str:
        return self._client.kind(error)

    async def close(self) -> None:
        for session in self._users.values():
            session.close()
        await self._client.close()
