"""The agent: one loop that hears, decides and has things done. It does nothing heavy itself."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import random
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from faultline import __version__
from faultline.agent.child import Child, Request
from faultline.agent.decide import decide
from faultline.agent.model import (
    Action,
    Decision,
    Document,
    Facts,
    Found,
    Tried,
    Verb,
    part,
    parts,
)
from faultline.agent.options import Options
from faultline.agent.settling import settle
from faultline.agent.talking import Renewer, Watcher, Writer
from faultline.agent.warden import Warden
from faultline.changes.store import Store, open_store
from faultline.errors import Conflict
from faultline.kernel import clock

DAY = 86_400.0
SCAN = 3600.0  # seconds between two scans for marks that no journal knows
LOOK = 1.0  # seconds between two looks whether the journal has changed, while there is a fault
TRYING = 3600.0  # seconds that trying all faults may take
LEAVE = 25.0  # seconds for undoing everything when the agent is told to end
_STATES = ("prepared", "applying", "active", "undoing", "ended")
_AGAIN = {
    "inject": 15.0,
    "measure": 60.0,
    "recover": 60.0,
    "readdress": 15.0,
}  # the longest pause between two tries


class Agent:
    """One agent. `run` comes back when it was told to end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = open_store(Path(options.programs.state))
        self._only = _alone(self.store)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._heard: queue.SimpleQueue[Document | None] = queue.SimpleQueue()
        self._host: Document | None = None
        self._status: Document = {}
        self._found: dict[str, Found] = {}
        self._tried: dict[tuple[Verb, str], Tried] = {}
        self._failures: dict[tuple[Verb, str], int] = {}
        self._unwanted: tuple[str, ...] = ()
        self._looked = False
        self._stopping = 0.0
        self._journal: object = None
        self._look_due, self._scan_due, self._try_due = 0.0, 0.0, 0.0
        self._settled = False
        self._about: Document = {
            "agent": __version__, "kernel": os.uname().release, **_remembered(self.store),
        }  # fmt: skip
        self._undoing = Child(options.programs.lean("undoing"))
        self._injecting = Child(options.programs.whole("injecting"))
        self._trying = Child(options.programs.whole("trying"), idle=0.0, stuck=TRYING)
        access, node = options.access, options.node
        self._watcher = Watcher(access, node, self._hear, _say)
        self._writer = Writer(access, node, _say)
        self._renewer = Renewer(
            access, node, options.namespace, self.store.run, options.lease, options.renew, _say
        )
        self._renewer.back = self._server_is_back
        self._warden = Warden(access, options.namespace, _say)

    @property
    def _helpers(self) -> tuple[Child, ...]:
        return self._undoing, self._injecting, self._trying

    # ------------------------------------------------------------------ hearing

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _server_is_back(self) -> None:
        self._watcher.again()
        self._ring()

    def _hear(self, host: Document | None) -> None:
        self._heard.put(host)
        self._ring()

    def stop(self) -> None:
        """Undo everything, if that is wanted, and come back from `run`."""
        self._stopping = self._stopping or time.monotonic()
        self._ring()

    def _told_to_end(self, _number: int, _frame: object) -> None:
        self.stop()

    def _take_in(self) -> None:
        while not self._heard.empty():
            host = self._heard.get()
            if host is None:
                host = {}  # nothing is wanted of a host that somebody has deleted
            meta, known = part(host, "metadata"), part(self._host or {}, "metadata")
            if meta.get("uid") != known.get("uid") or self._host is None:
                status = part(host, "status")
                self._writer.knows(status)
                if self._host is None:
                    self._status = {**status, **{k: v for k, v in self._about.items() if v}}
            self._host = host
            self._warden.duty(wanted=bool(part(host, "spec").get("warden")))

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Until it was told to end."""
        for talk in (self._watcher.run, self._writer.run, self._renewer.run):
            threading.Thread(target=talk, daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        while not self._over():
            self._take_in()
            self._errands()
            wake = None
            if self._host is not None or self._stopping:
                wake = self._decide()
            self._wait(wake)
        self._watcher.stop.set()
        self._renewer.stop.set()
        self._warden.duty(wanted=False)
        self._renewer.let_go()
        self._writer.stop()
        for helper in self._helpers:
            helper.close()

    def _over(self) -> bool:
        if not self._stopping:
            return False
        if not self.options.undo or time.monotonic() - self._stopping > LEAVE:
            return True
        open_ = any(each.open and each.ours for each in self._found.values())
        busy = any(helper.waiting for helper in (self._undoing, self._injecting))
        return self._looked and not open_ and not busy and self._writer.done

    def _decide(self) -> int | None:
        decision = decide(self._host or {}, self._status, self._facts())
        self._status = decision.status
        self._writer.want(decision.status)
        if self._stopping and not self.options.undo:
            return None
        for action in decision.actions:
            self._begin(action)
        self._forget(decision)
        return decision.wake

    def _facts(self) -> Facts:
        running = [each for helper in self._helpers for each in helper.waiting.values()]
        return Facts(
            boot=clock.boot_id(),
            clock=clock.now(),
            now=time.time(),
            looked=self._looked,
            found=tuple(self._found.values()),
            running=frozenset((each.verb, each.entry) for each in running if each.verb),
            tried=self._tried,
            lease=self._renewer.holds,
            stopping=bool(self._stopping) and self.options.undo,
            about=self._about,
            unwanted=self._unwanted,
        )

    def _forget(self, decision: Decision) -> None:
        """What is neither wanted nor reported needs not be remembered."""
        kept = {each["uid"] for each in decision.status["actual"]}
        kept |= {each.entry for each in self._found.values() if each.open}
        for uid in [uid for uid, each in self._found.items() if each.entry not in kept]:
            del self._found[uid]
        for key in [key for key in (*self._tried, *self._failures) if key[1] not in kept]:
            self._tried.pop(key, None)
            self._failures.pop(key, None)

    def _begin(self, action: Action) -> None:
        request = Request(action.verb, action.uid, action.verb)
        self._settled = False
        if action.verb == "recover":
            self._undoing.ask(request, {"uid": action.uid})
        else:
            self._injecting.ask(request, {"uid": action.uid, "order": action.order})

    # ------------------------------------------------------------------ what is done now and then

    def _errands(self) -> None:
        """Look into the journal, scan for marks, try what works: whichever is due."""
        now = time.monotonic()
        asked = {each.op for helper in self._helpers for each in helper.waiting.values()}
        if "look" not in asked and now >= self._look_due and self._journal_changed():
            self._look_due = now + LOOK
            self._undoing.ask(Request("look"), {"uids": self._entries()})
        quiet = not any(each.open for each in self._found.values()) and not asked
        if not quiet or self._host is None or self._stopping:
            return
        if now >= self._scan_due:
            self._scan_due = now + SCAN * random.uniform(0.9, 1.1)
            self._undoing.ask(Request("scan"), {})
        elif self.options.doctor and now >= self._try_due:
            self._try_due = now + DAY * random.uniform(0.9, 1.1)
            if not self._about.get("capabilities") or self._looked_long_ago():
                self._trying.ask(Request("try"), {})

    def _looked_long_ago(self) -> bool:
        return clock.now() - int(_remembered(self.store, whole=True).get("at", 0)) > DAY * 1e9

    def _entries(self) -> list[str]:
        told = [*parts(part(self._host or {}, "spec"), "desired"), *parts(self._status, "actual")]
        return sorted({str(each["uid"]) for each in told})

    def _journal_changed(self) -> bool:
        """Whether somebody has written into the journal, or we have not read what is wanted now."""
        log = self.store.journal.with_name(f"{self.store.journal.name}-wal")
        now: list[object] = []
        for file in (self.store.journal, log):
            try:
                info = file.stat()
            except FileNotFoundError:
                continue
            now += [info.st_mtime_ns, info.st_size, info.st_ino]
        changed = not self._looked or now != self._journal
        self._journal = now
        return changed

    # ------------------------------------------------------------------ waiting, and what comes

    def _wait(self, wake: int | None) -> None:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        pauses = [DAY]
        for helper in self._helpers:
            pause = helper.tidy()
            if pause is not None:
                pauses.append(pause)
                poller.register(helper.fileno(), select.POLLIN)
        if wake is not None:
            pauses.append((wake - clock.now()) / 1e9)
        pauses += self._pauses()
        poller.poll(max(0.0, min(pauses)) * 1000 + 1)
        with suppress(BlockingIOError):  # it was something else
            os.eventfd_read(self._bell)
        for helper in self._helpers:
            for request, answer in helper.read():
                self._answered(request, answer)

    def _pauses(self) -> list[float]:
        """Seconds until what is due by itself."""
        now = time.monotonic()
        if any(each.open for each in self._found.values()):
            lease = (self._renewer.until - clock.now()) / 1e9
            return [LOOK, *([lease] if lease > 0 else [])]
        if self._stopping:
            return [0.1]
        if not self._settled and not any(helper.fileno() >= 0 for helper in self._helpers):
            self._settled = True
            settle()
        if self._host is None or any(helper.waiting for helper in self._helpers):
            return []  # what is awaited wakes us
        return [self._scan_due - now, *([self._try_due - now] if self.options.doctor else [])]

    def _answered(self, request: Request, answer: Document) -> None:
        told: Document = answer.get("part") or answer.get("done") or {}
        for each in told.get("found", ()):
            self._know(Found(**each), sure=request.op == "recover")
        if "part" in answer:
            return
        if "lost" in answer or "error" in answer:
            self._failed(request, answer.get("error") or {"text": "its process was killed"})
        elif request.verb:
            self._succeeded(request)
        if request.op == "look" and "done" in answer:
            self._looked = True
        elif request.op == "scan" and "done" in answer:
            self._unwanted = tuple(told["unwanted"])
            self._about["runtimes"] = told["runtimes"]
            self._about["components"] = told["components"]
        elif request.op == "try" and "done" in answer:
            self._about["capabilities"] = told["capabilities"]
            _remember(self.store, told["capabilities"])

    def _know(self, found: Found, *, sure: bool) -> None:
        """What is told later may have been seen earlier: a state never goes back."""
        known = self._found.get(found.uid)
        if known is not None:
            back = _STATES.index(found.state) < _STATES.index(known.state)
            if back and not sure:
                return
            if known.reading is not None and found.reading is None:
                found = replace(found, reading=known.reading)
        self._found[found.uid] = found

    def _succeeded(self, request: Request) -> None:
        assert request.verb is not None
        key: tuple[Verb, str] = (request.verb, request.entry)
        now = self._found.get(request.uid)
        unmeasured = now is not None and (now.reading or {}).get("effect") == "unmeasured"
        if now is not None and (now.end == "needs a person" or (now.open and unmeasured)):
            # Tried again, since a person may have helped, or traffic may have come.
            verb: Verb = "recover" if now.end else "measure"
            self._put_off((verb, request.entry), Tried(0, ""), 5.0)
            return
        self._tried.pop(key, None)
        self._failures.pop(key, None)

    def _failed(self, request: Request, error: Document) -> None:
        if request.op == "look":
            self._journal = None
        if not request.verb:
            _say(f"{request.op}: {error['text']}")
            return
        if error.get("taken"):
            self._journal = None  # somebody was asked before us: the journal says what came of it
        _say(f"{request.verb} {request.uid}: {error['text']}")
        final = not error.get("retry", True) and request.verb == "inject"
        tried = Tried(0, error["text"], final, bool(error.get("gone")))
        self._put_off((request.verb, request.entry), tried, 0.5)

    def _put_off(self, key: tuple[Verb, str], tried: Tried, first: float) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(_AGAIN[key[0]], first * 2 ** min(count - 1, 10)) * random.uniform(0.8, 1.0)
        self._tried[key] = replace(tried, until=clock.now() + round(pause * 1e9))


def _alone(store: Store) -> int:
    """Two agents of one store would do everything twice; raises Conflict."""
    fd = os.open(store.run / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(
            f"an agent of {store.state} runs already", holder="agent", hint="end it first"
        ) from None
    return fd


def _remembered(store: Store, *, whole: bool = False) -> Document:
    """What works here, if it was tried with this version on this boot of the kernel."""
    try:
        kept: Document = json.loads((store.run / "agent.capabilities").read_bytes())
    except (OSError, ValueError):
        return {}
    if (kept["version"], kept["boot"]) != (__version__, clock.boot_id()):
        return {}
    return kept if whole else {"capabilities": kept["capabilities"]}


def _remember(store: Store, capabilities: list[Document]) -> None:
    about = {"version": __version__, "boot": clock.boot_id(), "at": clock.now()}
    file = store.run / "agent.capabilities"
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(json.dumps({**about, "capabilities": capabilities}))
        new.replace(file)
    except OSError as error:
        _say(f"what works here could not be kept: {error}")


def _say(text: str) -> None:
    """A line in the log of the agent."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()
