"""Faults of the network: packets lost, cut off, doubled, damaged, late, out of order, or slow.

Every one of a packet is a filter of ours on the device (eBPF in clsact) that carries its own
deadline; those that hold packets lead them through devices of ours and back. Root queueing
disciplines are never touched, and any number of faults may overlap on a device: packets meet them
one after the other.
"""

from __future__ import annotations

from faultline.faults.network.device import NetworkDown, NetworkOccupy
from faultline.faults.network.flood import NetworkFlood
from faultline.faults.network.packets import (
    NetworkCorrupt,
    NetworkDelay,
    NetworkDuplicate,
    NetworkLimit,
    NetworkLoss,
    NetworkPartition,
    NetworkReorder,
    NetworkReset,
)

__all__ = [
    "NetworkCorrupt",
    "NetworkDelay",
    "NetworkDown",
    "NetworkDuplicate",
    "NetworkFlood",
    "NetworkLimit",
    "NetworkLoss",
    "NetworkOccupy",
    "NetworkPartition",
    "NetworkReorder",
    "NetworkReset",
]
