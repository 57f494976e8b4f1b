"""Faults of memory: little of it left, none left, a limit that is cut, no swap, no cache."""

from __future__ import annotations

from faultline.faults.memory.fill import MemoryFill, MemoryOom

__all__ = ["MemoryFill", "MemoryOom"]
