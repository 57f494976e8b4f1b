"""Faults of memory: little of it left, none left, a limit that is cut, no swap, no cache."""

from __future__ import annotations

from faultline.faults.memory.fill import MemoryFill, MemoryOom
from faultline.faults.memory.host import MemoryCache, MemorySwapoff
from faultline.faults.memory.limits import MemorySqueeze

__all__ = ["MemoryCache", "MemoryFill", "MemoryOom", "MemorySqueeze", "MemorySwapoff"]
