"""Faults of the kernel: switches, tables that are full, and the end of the host.

What hits the whole machine is refused unless it is allowed by name.
"""

from __future__ import annotations

from faultline.faults.kernel.ends import KernelPanic, KernelPoweroff, KernelReboot
from faultline.faults.kernel.switches import KernelConntrack, KernelSysctl
from faultline.faults.kernel.tables import KernelFdfull, KernelNproc

__all__ = [
    "KernelConntrack",
    "KernelFdfull",
    "KernelNproc",
    "KernelPanic",
    "KernelPoweroff",
    "KernelReboot",
    "KernelSysctl",
]
