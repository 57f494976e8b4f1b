"""The closed set of change kinds.

A keeper loads all of them before any fault (`load_all`); a command those that its fault is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from faultline.changes.kind import Kind

_CLASSES: dict[str, tuple[str, str]] = {  # the name of each, its module here, its class
    "cgroup_controller": ("cgroup_controller", "CgroupController"),
    "cgroup_frozen": ("cgroup_frozen", "CgroupFrozen"),
    "cgroup_tasks": ("cgroup_tasks", "CgroupTasks"),
    "classifier": ("classifier", "Classifier"),
    "conntrack_fill": ("conntrack_fill", "ConntrackFill"),
    "container_removed": ("container_run", "ContainerRemoved"),
    "container_stopped": ("container_run", "ContainerStopped"),
    "disk_fill": ("disk_fill", "DiskFill"),
    "disk_inodes": ("disk_inodes", "DiskInodes"),
    "dm_table": ("dm_table", "DmTable"),
    "file_added": ("file_added", "FileAdded"),
    "file_attributes": ("file_attributes", "FileAttributes"),
    "file_content": ("file_content", "FileContent"),
    "file_lines": ("file_lines", "FileLines"),
    "file_moved": ("file_moved", "FileMoved"),
    "hop": ("hop", "Hop"),
    "host_end": ("host_end", "HostEnd"),
    "io_limit": ("io_limit", "IoLimit"),
    "kernel_value": ("kernel_value", "KernelValue"),
    "link_down": ("link_down", "LinkDown"),
    "mount_readonly": ("mount_readonly", "MountReadonly"),
    "plugin": ("plugin", "Plugin"),
    "process_attribute": ("process_attribute", "ProcessAttribute"),
    "process_ended": ("container_run", "ProcessEnded"),
    "redirect": ("redirect", "Redirect"),
    "restart": ("restart", "Restart"),
    "signalled": ("signal", "Signalled"),
    "socket_denied": ("socket_denied", "SocketDenied"),
    "sockets_ended": ("sockets_ended", "SocketsEnded"),
    "stopped": ("signal", "Stopped"),
    "swap_off": ("swap_off", "SwapOff"),
    "worker": ("worker", "Worker"),
}


class _Kinds(MutableMapping[str, Kind]):
    """The kinds by name, each loaded when it is first looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Kind] = {}

    def __getitem__(self, name: str) -> Kind:
        if name not in self._loaded:
            module, kind = _CLASSES[name]
            found = getattr(import_module(f"faultline.changes.{module}"), kind)
            self._loaded.setdefault(name, found())
        return self._loaded[name]

    def __setitem__(self, name: str, kind: Kind) -> None:
        self._loaded[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter({**_CLASSES, **self._loaded})

    def __len__(self) -> int:
        return len(_CLASSES.keys() | self._loaded.keys())


KINDS: MutableMapping[str, Kind] = _Kinds()


def load_all() -> None:
    """Have all undo code in memory, whatever happens to the disk."""
    for name in _CLASSES:
        KINDS[name]
