"""What changes, as it changes: server-sent events of runs, schedules and faults.

Each event has an id; who comes back with the last one (`Last-Event-ID`, as browsers and libraries
send it by themselves) misses nothing, and may see something twice: an event tells how a thing is,
not how it changed.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as Late
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from faultline.changes.model import Record, State
from faultline.errors import FaultlineError, InvalidParameter
from faultline.injection.injector import Injector
from faultline.server.host import Host
from faultline.server.problems import Problem, TooMany
from faultline.server.runs import summarised
from faultline.stores.model import Event, Expired, Filter, Store

MOST = 32
"""Who follow at the same time."""
LOOK = 0.5
"""Seconds between two looks at the journal of faults."""
BEAT = 10.0
"""Seconds after which a line is sent though nothing happened, so that who has gone is noticed."""
_READ = re.compile(r"(\d{1,18})(?:\.(\d{1,16}))?")
_NEWEST = 200  # ended faults that are looked at


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where somebody has seen: the version of the store, and milliseconds since 1970 for
    faults.
    """

    version: int
    faults: int

    def __str__(self) -> str:
        return f"{self.version}.{self.faults}"


def position(text: str) -> Position:
    """Read the id of an event; raises InvalidParameter."""
    found = _READ.fullmatch(text)
    if found is None:
        raise InvalidParameter("Last-Event-ID", text, "the id of an event, or 0")
    return Position(int(found[1]), int(found[2] or 0))


class Feed(threading.Thread):
    """Looks for what changes, for one caller, and hands it over as fast as that one takes it."""

    def __init__(self, host: Host, since: Position, only: str) -> None:
        super().__init__(name="faultline events", daemon=True)
        self.out: asyncio.Queue[bytes | None] = asyncio.Queue(64)
        self.ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._host, self._since, self._only = host, since, only

    def run(self) -> None:
        try:
            with ExitStack() as stack:
                store = stack.enter_context(self._host.runs()).store
                injector = stack.enter_context(self._host.injector())
                self._follow(store, injector)
        except FaultlineError as error:  # the caller is told, and comes back
            self._put(_line("error", "", Problem(error).data))
        self._put(None)

    def _follow(self, store: Store, injector: Injector) -> None:
        now: Position = self._since
        if now.version > store.version():
            raise Expired(f"version {now.version} is of another store; this one is younger")
        faults = _Faults(injector, now.faults)
        beat = 0.0
        while not self.ended.is_set() and not self._host.ending.is_set():
            sent = False
            for name, data in faults.changed() if not self._only else ():
                now = Position(now.version, max(now.faults, faults.at))
                sent = self._put(_line(name, str(now), data))
            until = time.monotonic() + LOOK
            for event in store.watch(now.version, timeout=LOOK, light=True):
                now = Position(event.version, now.faults)
                if told := self._told(store, event):
                    sent = self._put(_line(event.kind.lower(), str(now), told))
                if self.ended.is_set() or time.monotonic() > until:
                    break
            if sent or time.monotonic() > beat:
                beat = time.monotonic() + BEAT
                if not sent:
                    self._put(f"id: {now}\n\n".encode())

    def _told(self, store: Store, event: Event) -> dict[str, Any] | None:
        if self._only and (event.kind, event.name) != ("Run", self._only):
            return None
        about = {"kind": event.kind, "name": event.name, "version": event.version}
        if event.type == "deleted":
            return {**about, "deleted": True}
        if event.kind != "Run":
            return about
        found = store.summaries("Run", Filter(names=(event.name,)))
        return {**about, **summarised(found[0]).to_json()} if found else None

    def _put(self, item: bytes | None) -> bool:
        """Hand over; waits while the caller takes nothing, and gives up when it has gone."""
        if self._loop.is_closed():  # the server has ended
            return False
        waiting = asyncio.run_coroutine_threadsafe(self.out.put(item), self._loop)
        while not self.ended.is_set():
            with suppress(Late):
                waiting.result(0.5)
                return True
        with suppress(CancelledError):
            waiting.cancel()
        return False


class _Faults:
    """The faults of the journal as they were last seen."""

    def __init__(self, injector: Injector, since: int) -> None:
        self._injector = injector
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._since = since / 1000
        self.at = since
        for record in self._records():
            if max(record.created, record.ended or 0.0) < self._since:
                self._seen[record.uid] = _key(record) if record.ended else ()

    def _records(self) -> list[Record]:
        ended = self._injector.query(State.ENDED, limit=_NEWEST)
        return [*reversed(ended), *self._injector.journal.open_records()]

    def changed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is not as it was, as the names and data of events."""
        path = self._injector.journal.path
        stamp: list[tuple[int, int]] = []
        for each in (path, path.with_name(f"{path.name}-wal")):
            with suppress(OSError):
                info = each.stat()
                stamp.append((info.st_mtime_ns, info.st_size))
        if tuple(stamp) == self._stamp:
            return
        self._stamp = tuple(stamp)
        self.at = int(time.time() * 1000)
        for record in self._records():
            key = _key(record)
            if self._seen.get(record.uid) != key:
                self._seen[record.uid] = key
                yield "fault", _told(record)


def _key(record: Record) -> tuple[Any, ...]:
    return (record.state, record.end, (record.reading or {}).get("effect"))


def _told(record: Record) -> dict[str, Any]:
    state, end, effect = _key(record)
    return {
        "uid": record.uid, "fault": record.fault, "state": str(state),
        "end": str(end) if end else None, "effect": str(effect) if effect else None,
        "created": record.created, "ended": record.ended,
    }  # fmt: skip


def _line(name: str, number: str, data: dict[str, Any]) -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _now(host: Host) -> Position:
    with host.runs() as kept:
        return Position(kept.store.version(), int(time.time() * 1000))


async def _stream(feed: Feed) -> AsyncIterator[bytes]:
    feed.start()
    try:
        while (item := await feed.out.get()) is not None:
            yield item
    finally:
        feed.ended.set()


def routes(host: Host) -> APIRouter:
    """The route of events."""
    made = APIRouter(tags=["events"])
    following: set[Feed] = set()

    @made.get(
        "/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events."}},
    )
    async def events(
        run: str = "",
        since: Annotated[str, Query(description="As Last-Event-ID; 0 for all that is kept.")] = "",
        last_event_id: Annotated[str, Header()] = "",
    ) -> StreamingResponse:
        """Changes of runs, schedules and faults as server-sent events, from now on or from behind
        `Last-Event-ID`. With `run` those of one run alone. Events are named after the kind: `run`,
        `schedule`, `calendar`, `experiment`, `fault`; `error` is the last one of a stream that
        cannot go on.
        """
        wanted = last_event_id or since
        seen = position(wanted) if wanted else await run_in_threadpool(_now, host)
        following.difference_update([each for each in following if each.ended.is_set()])
        if len(following) >= MOST:
            raise TooMany(f"{MOST} follow the events already")
        feed = Feed(host, seen, run)
        following.add(feed)
        return StreamingResponse(
            _stream(feed), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    return made
