"""Faults of file systems and of what lies below them."""

from faultline.faults.disk.mapped import DiskDelay, DiskError
from faultline.faults.disk.space import DiskFill, DiskInodes, DiskReadonly

__all__ = ["DiskDelay", "DiskError", "DiskFill", "DiskInodes", "DiskReadonly"]
