"""Faults of processors: busy cores, tasks that wait or switch, a quota that is cut."""

from __future__ import annotations

from faultline.faults.cpu.burn import CpuBurn
from faultline.faults.cpu.tasks import CpuLoad, CpuSwitch
from faultline.faults.cpu.throttle import CpuThrottle

__all__ = ["CpuBurn", "CpuLoad", "CpuSwitch", "CpuThrottle"]
