"""A world around the decision: journal, API server, clocks and processes, without any of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from faultline.agent.decide import LATE, decide
from faultline.agent.model import Action, Facts, Found, Tried, Verb, sides

SECOND = 10**9
Document = dict[str, Any]


@dataclass
class World:
    """One host. What is real is in `journal`; what the server has is in `server`."""

    boot: str = "boot-1"
    clock: int = 1000 * SECOND
    now: float = 1_700_000_000.0
    server: Document = field(
        default_factory=lambda: {"metadata": {"generation": 1}, "spec": {"desired": []}}
    )
    journal: dict[str, Found] = field(default_factory=dict)
    leased: dict[str, bool] = field(default_factory=dict)
    injected: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    refusing: bool = False
    asked_after_end: list[str] = field(default_factory=list)
    lease_until: int = 0
    reached: bool = True
    # what the agent has in memory
    alive: bool = True
    host: Document | None = None
    status: Document = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    looked: bool = False
    running: dict[tuple[Verb, str], Action] = field(default_factory=dict)
    tried: dict[tuple[Verb, str], Tried] = field(default_factory=dict)
    wake: int | None = None

    # ------------------------------------------------------------------ the operator

    def ask(self, uid: str, **more: Any) -> None:
        entry = {
            "uid": uid, "owner": "Fault/a/b", "ownerUid": "u", "fault": "cpu.burn",
            "duration": "60s", "askedAt": self.now, **more,
        }  # fmt: skip
        if not any(each["uid"] == uid for each in self.desired):
            self._spec(desired=[*self.desired, entry])

    def marked(self, uid: str) -> None:
        """To be undone, and kept in the list."""
        self._spec(
            desired=[{**each, "undo": each.get("undo") or each["uid"] == uid}
                     for each in self.desired]
        )  # fmt: skip

    def retract(self, uid: str) -> None:
        self._spec(desired=[each for each in self.desired if each["uid"] != uid])

    def readdress(self, uid: str, **params: Any) -> None:
        """Its peers have other addresses by now."""
        self._spec(
            desired=[{**each, "params": {**each.get("params", {}), **params}}
                     if each["uid"] == uid else each for each in self.desired]
        )  # fmt: skip

    def halt(self, why: str) -> None:
        self._spec(halted=why)

    def _spec(self, **change: Any) -> None:
        generation = self.server["metadata"]["generation"] + 1
        self.server = {
            **self.server,
            "metadata": {"generation": generation},
            "spec": {**self.server["spec"], **change},
        }

    @property
    def desired(self) -> list[Document]:
        return self.server["spec"]["desired"]

    def entry(self, uid: str) -> Document:
        told = (self.server.get("status") or {}).get("actual") or []
        return next((each for each in told if each["uid"] == uid), {})

    # ------------------------------------------------------------------ time, boots, the keepers

    def passes(self, seconds: float, step: float = 0.0) -> None:
        """Time goes on, and somebody may set the clock of the day meanwhile."""
        self.clock += round(seconds * SECOND)
        self.now += seconds + step
        self.keep()

    def keep(self) -> None:
        """What keepers do without anybody: deadlines, and the end of the lease."""
        for uid, each in list(self.journal.items()):
            if not each.open or each.boot != self.boot:
                continue
            lease_over = self.leased.get(uid) and self.clock >= self.lease_until
            if self.clock >= each.deadline or lease_over:
                self._end(uid, "recovered", "ended with the lease" if lease_over else "")

    def _end(self, uid: str, end: str, note: str = "") -> None:
        each = self.journal[uid]
        self.journal[uid] = replace(each, state="ended", end=end, ended=self.now, note=note)
        self.undone.append(uid)

    def target_ends(self, uid: str) -> None:
        for name, each in list(self.journal.items()):
            if each.entry == uid and each.open:
                self._end(name, "target gone")

    def reboots(self) -> None:
        self.boot = f"boot-{int(self.boot[5:]) + 1}"
        self.clock = 10 * SECOND
        self.lease_until = 0
        self.dies()

    def dies(self) -> None:
        """The agent, with all that it knew and all that worked for it."""
        self.alive, self.host, self.status = False, None, {}
        self.found, self.looked = {}, False
        self.running, self.tried = {}, {}

    def starts(self) -> None:
        self.alive = True

    # ------------------------------------------------------------------ the agent

    def hears(self) -> None:
        """The watch tells it what the server has now."""
        if not self.alive or not self.reached:
            return
        if self.host is None:
            self.status = dict(self.server.get("status") or {})
        self.host = self.server

    def writes(self) -> None:
        if self.alive and self.reached and self.host is not None:
            self.server = {**self.server, "status": dict(self.status)}

    def renews(self) -> None:
        if self.alive and self.reached:
            self.lease_until = self.clock + 40 * SECOND

    def looks(self) -> None:
        """It reads the journal, and what is open there is kept again."""
        if self.alive:
            self.found = dict(self.journal)
            self.looked = True

    def facts(self) -> Facts:
        return Facts(
            self.boot, self.clock, self.now, self.looked, tuple(self.found.values()),
            frozenset(self.running), self.tried, self.clock < self.lease_until,
        )  # fmt: skip

    def decides(self) -> list[Action]:
        if not self.alive or self.host is None:
            return []
        made = decide(self.host, self.status, self.facts())
        again = decide(self.host, made.status, self.facts())
        assert again.actions == made.actions  # the same question, the same answer
        self.status, self.wake = made.status, made.wake
        for action in made.actions:
            assert action.key not in self.running
            self.running[action.key] = action
        return list(made.actions)

    def works(self, key: tuple[Verb, str]) -> None:
        """What was begun comes to its end, and the agent hears of it."""
        action = self.running.get(key)
        if action is None:
            return
        self.begins(key)
        if not self.alive:
            return
        del self.running[key]
        if action.verb == "inject" and action.uid not in self.journal:
            late = Tried(self.clock + SECOND, "no", final=self.refusing)
            self.tried[key] = late
            return
        self.tried.pop(key, None)
        record = self.journal.get(action.uid)
        if record is None:  # recovered by its mark alone
            record = Found(action.uid, "ended", self.boot, 0, 0.0, end="recovered", ended=self.now)
        self.found[action.uid] = record

    def begins(self, key: tuple[Verb, str]) -> None:
        """What was begun does what it does; whether anybody hears of it is another matter."""
        action = self.running.get(key)
        if action is None:
            return
        if action.verb == "inject":
            self._inject(action)
        elif action.verb == "recover":
            if self.journal.get(action.uid) and self.journal[action.uid].open:
                self._end(action.uid, "recovered")
        elif action.verb == "readdress":
            if self.journal[action.uid].open:
                self.journal[action.uid] = replace(self.journal[action.uid], sides=action.order)
        elif self.journal[action.uid].open:
            reading = {"effect": "effective", "asked": "1", "measured": "1"}
            self.journal[action.uid] = replace(self.journal[action.uid], reading=reading)

    def _inject(self, action: Action) -> None:
        if action.uid in self.journal or self.refusing:
            return  # asked twice: the uid is taken
        leased = action.order["leased"]
        if leased and self.clock >= self.lease_until:
            return  # the keepers take none of a lease that is over
        entry = action.uid.partition(".")[0]
        assert not any(each.open for each in self.journal.values() if each.entry == entry)
        self.injected.append(action.uid)
        self.leased[action.uid] = leased
        deadline = self.clock + action.order["duration"]
        told = sides(action.order["params"])
        made = Found(action.uid, "active", self.boot, deadline, self.now, sides=told)
        self.journal[action.uid] = made

    # ------------------------------------------------------------------ until nothing more happens

    def settles(self) -> None:
        """A healthy world from here on: everything is heard, done and written."""
        self.alive, self.reached, self.refusing = True, True, False
        for _ in range(12):
            self.renews()
            self.hears()
            self.looks()
            self.decides()
            for key in list(self.running):
                self.works(key)
            self.passes(2.0)
            self.decides()
            self.writes()

    @property
    def open(self) -> set[str]:
        return {each.entry for each in self.journal.values() if each.open}


LONG = LATE / SECOND
