"""Injecting and measuring faults, with their parameter models."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

from faultline.agent.model import LEASE, Document
from faultline.agent.worker import Tell, found
from faultline.changes import keepers
from faultline.errors import Conflict, Refused
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.places import pods
from faultline.places.find import Target
from faultline.units import Duration

ENABLED = "FAULTLINE_FAULTS"
"""The variable that names the faults and families that are carried out, if not all are."""
_NETWORK = ("network",)
"""Families that act on the network of a pod alone, which its sandbox holds as long as it lives."""


class Orders:
    """What can be asked of this process."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._starting = threading.Lock()

    def _keepers(self, injector: Injector) -> None:
        """Have them there: once, and not by each of several threads."""
        with self._starting:
            watch = keepers.Keepers(injector.store)
            try:
                watch.start()
            finally:
                watch.close()

    def inject(self, asked: Document, tell: Tell) -> Document:
        """Inject one fault, say so, and measure it."""
        uid, order = str(asked["uid"]), asked["order"]
        _check_enabled(order["fault"])
        with Injector(self.state) as injector:
            injector.check_halt()
            injector.lease = LEASE if order["leased"] else ""
            if any(record.uid == uid for record in injector.journal.open_records()):
                raise Conflict(f"uid {uid!r} is taken", holder=uid)  # before anything is planned
            self._keepers(injector)
            record = injector.inject(
                Order(
                    fault=order["fault"],
                    params=order["params"],
                    duration=Duration(order["duration"]),
                    uid=uid,
                    allow=frozenset(order["allow"]),
                    creator=order["creator"],
                    target=_target(order),
                    seed=zlib.crc32(uid.encode()),  # asked twice, it chooses the same
                )
            )
            tell({"found": [found(injector.get(record.uid))]})
            return _measured(injector, uid)

    def measure(self, asked: Document, _tell: Tell) -> Document:
        """Measure a fault that is in place."""
        with Injector(self.state) as injector:
            return _measured(injector, asked["uid"])

    def readdress(self, asked: Document, _tell: Tell) -> Document:
        """Have a fault that is in place go by other addresses."""
        with Injector(self.state) as injector:
            injector.readdress(asked["uid"], asked["order"])
            return {"found": [found(injector.get(asked["uid"]))]}


def _check_enabled(fault: str) -> None:
    """Raise Refused if agents of this cluster do not carry it out."""
    enabled = [each for each in os.environ.get(ENABLED, "").split(",") if each]
    if enabled and not {fault, fault.partition(".")[0]} & set(enabled):
        raise Refused(
            f"agents of this cluster do not carry out {fault}",
            hint=f"they carry out {', '.join(enabled)}: the setting agent.faults",
        )


def _measured(injector: Injector, uid: str) -> Document:
    injector.observe(uid)
    return {"found": [found(injector.get(uid))]}


def _target(order: Document) -> Target:
    """The place, by identity where it is a pod."""
    pod = order["pod"]
    if not pod:
        return Target(**order["target"])
    family = str(order["fault"]).partition(".")[0]
    wanted = pods.Wanted(
        pod["namespace"], pod["name"], pod["uid"], pod.get("container", ""),
        pod.get("containerId", ""),
    )  # fmt: skip
    return Target(container=pods.find(wanted, network=family in _NETWORK).id)
