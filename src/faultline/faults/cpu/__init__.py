"""Faults of processors: busy cores, tasks that wait or switch, a quota that is cut."""

from __future__ import annotations

from faultline.faults.cpu.burn import CpuBurn
from faultline.faults.cpu.tasks import CpuLoad

__all__ = ["CpuBurn", "CpuLoad"]
