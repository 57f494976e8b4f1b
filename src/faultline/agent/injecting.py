"""Injects and measures faults: with parameter models, so in a process that ends."""

from __future__ import annotations

import sys
from pathlib import Path

from faultline.changes import keepers, launch
from faultline.changes.store import open_store
from faultline.kernel import machine

THREADS = 8


def main() -> None:
    """Entry of the process: its last argument is the state folder."""
    machine.leave()  # keepers and workers are to outlive a pod that we run in
    store = open_store(Path(sys.argv[-1]))
    # They come up while models are loaded here, and end by themselves if there is nothing to do.
    launch.begin(store, *(role for role in launch.ROLES if not keepers.is_there(store, role)))
    from faultline.agent.orders import Orders
    from faultline.agent.worker import serve

    orders = Orders(store.state)
    handlers = {
        "inject": orders.inject,
        "measure": orders.measure,
        "readdress": orders.readdress,
    }
    serve(handlers, THREADS)
