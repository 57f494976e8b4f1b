"""The bpf(2) system call: load programs, make and read maps, find both again by number.

A classifier's counters live in a map. Any process with the rights finds them from the filter alone:
filter -> program number -> map numbers -> values; so proof of effect needs no file and no daemon.
Layouts: `union bpf_attr` in linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from faultline.errors import Unsupported

PROG_TYPE_SCHED_CLS = 3
F_NO_PREALLOC = 1 << 0
F_MMAPABLE = 1 << 10

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_NUMBER = _NUMBERS.get(os.uname().machine)
_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _LOAD = 0, 1, 2, 3, 4, 5
_PROG_ATTACH, _PROG_DETACH, _PROG_QUERY = 8, 9, 16
_ALLOW_MULTI = 1 << 1
_PROG_FD_BY_ID, _MAP_FD_BY_ID, _INFO_BY_FD = 13, 14, 15
_LICENSE = b"Apache-2.0\0"
_LOG_BYTES = 1 << 18
_INFO_BYTES = 256
_ATTR_BYTES = 128
_ALLOCATIONS = 12

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class MapType(IntEnum):
    """The kinds of map that are used here."""

    HASH = 1
    ARRAY = 2
    LRU_HASH = 9
    LPM_TRIE = 11


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says about a map."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def _bpf(command: int, attributes: bytes, what: str) -> int:
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), _ATTR_BYTES))
    return _bpf_in_place(command, buffer, what)


def _bpf_in_place(command: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> int:
    """The same where the kernel answers in the attributes."""
    if _NUMBER is None:
        raise Unsupported(f"bpf(2) has no known number on {os.uname().machine}")
    size = ctypes.c_uint(len(buffer))
    result = int(_libc.syscall(ctypes.c_long(_NUMBER), ctypes.c_int(command), buffer, size))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _name(name: str) -> bytes:
    return name.encode()[:15].ljust(16, b"\0")


class Map:
    """One map by descriptor. Values are bytes; what they mean is the caller's matter."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size

    @classmethod
    def create(
        cls,
        kind: MapType,
        key_size: int,
        value_size: int,
        max_entries: int,
        *,
        name: str,
        flags: int = 0,
    ) -> Map:
        """Make a map (close-on-exec). OSError EPERM without CAP_BPF."""
        head = struct.pack("=IIIIIII", kind, key_size, value_size, max_entries, flags, 0, 0)
        fd = _bpf(_CREATE, head + _name(name), f"bpf: create the map {name}")
        return cls(fd, key_size, value_size)

    @classmethod
    def by_id(cls, number: int) -> Map:
        """Open a map that somebody made by its number. OSError ENOENT when it is gone."""
        fd = _bpf(_MAP_FD_BY_ID, struct.pack("=I", number), f"bpf: open the map {number}")
        try:
            info = map_info(fd)
        except OSError:
            os.close(fd)
            raise
        return cls(fd, info.key_size, info.value_size)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key; None when there is none."""
        value = ctypes.create_string_buffer(self.value_size)
        try:
            self._element(_LOOKUP, key, _address(value))
        except OSError as problem:
            if problem.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Set a key. The allocator behind a new trie fills itself late: ENOMEM is asked again."""
        buffer = ctypes.create_string_buffer(value, self.value_size)
        for attempt in range(_ALLOCATIONS):
            try:
                self._element(_UPDATE, key, _address(buffer))
            except OSError as problem:
                if problem.errno != errno.ENOMEM or attempt == _ALLOCATIONS - 1:
                    raise
                time.sleep(0.001 * (attempt + 1))
                continue
            return

    def delete(self, key: bytes) -> None:
        """Remove a key; one that is not there is no error."""
        try:
            self._element(_DELETE, key, 0)
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise

    def list_keys(self) -> list[bytes]:
        """Every key, read once; concurrent writers may be missed."""
        found: list[bytes] = []
        after: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self.key_size)
            try:
                self._element(_NEXT_KEY, after, _address(following))
            except OSError as problem:
                if problem.errno == errno.ENOENT:
                    return found
                raise
            after = following.raw
            found.append(after)

    def _element(self, command: int, key: bytes | None, value: int) -> None:
        if key is not None and len(key) != self.key_size:
            raise ValueError(f"a key of {len(key)} bytes for a map with keys of {self.key_size}")
        buffer = ctypes.create_string_buffer(key, self.key_size) if key is not None else None
        at = _address(buffer) if buffer is not None else 0
        _bpf(command, struct.pack("=IIQQQ", self.fd, 0, at, value, 0), "bpf: map element")

    def mapped(self) -> mmap.mmap:
        """The memory of an array made with F_MMAPABLE: written without a system call."""
        return mmap.mmap(self.fd, mmap.PAGESIZE, mmap.MAP_SHARED)


def load_program(
    code: bytes, *, name: str, kind: int = PROG_TYPE_SCHED_CLS, attach: int = 0
) -> int:
    """Load a program, by default a traffic-control classifier, and return its descriptor.

    `attach` is where it will be attached, for the kinds that must say so.

    OSError carries the verifier's last lines when it refuses, EPERM without CAP_BPF and
    CAP_NET_ADMIN.
    """
    try:
        return _load(code, name, None, kind, attach)
    except OSError as problem:
        if problem.errno in (errno.EPERM, errno.ENOSYS, errno.ENOMEM):
            raise
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return _load(code, name, log, kind, attach)
    except OSError as problem:
        said = "\n".join(log.value.decode(errors="replace").strip().splitlines()[-12:])
        raise OSError(problem.errno, f"{problem.strerror}: {said}", f"bpf: load {name}") from None


def _load(
    code: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None, kind: int, attach: int
) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(_LICENSE)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(code) // 8,
        _address(instructions),
        _address(license_text),
        1 if log is not None else 0,
        len(log) if log is not None else 0,
        _address(log) if log is not None else 0,
        0,
        0,
        _name(name),
        0,
        attach,
    )
    return _bpf(_LOAD, attributes, f"bpf: load {name}")


def attach_program(target: int, fd: int, hook: int) -> None:
    """Attach a program to a control group, beside those that are there (BPF_F_ALLOW_MULTI)."""
    attributes = struct.pack("=IIII", target, fd, hook, _ALLOW_MULTI)
    _bpf(_PROG_ATTACH, attributes, "bpf: attach a program to a control group")


def detach_program(target: int, number: int, hook: int) -> None:
    """Take a program away from a control group; one that is not there is no error."""
    try:
        fd = program_by_id(number)
    except FileNotFoundError:
        return
    try:
        attributes = struct.pack("=IIII", target, fd, hook, 0)
        _bpf(_PROG_DETACH, attributes, "bpf: detach a program from a control group")
    except FileNotFoundError:
        return
    finally:
        os.close(fd)


def attached_programs(target: int, hook: int) -> list[int]:
    """The numbers of the programs on a control group itself."""
    ids = (ctypes.c_uint32 * 64)()
    attributes = bytearray(_ATTR_BYTES)
    struct.pack_into("=IIIIQI", attributes, 0, target, hook, 0, 0, ctypes.addressof(ids), len(ids))
    buffer = ctypes.create_string_buffer(bytes(attributes), _ATTR_BYTES)
    _bpf_in_place(_PROG_QUERY, buffer, "bpf: programs of a control group")
    return list(ids[: struct.unpack_from("=I", buffer, 24)[0]])


def program_by_id(number: int) -> int:
    """A descriptor of a loaded program. OSError ENOENT when it is gone."""
    return _bpf(_PROG_FD_BY_ID, struct.pack("=I", number), f"bpf: open the program {number}")


def _info(fd: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    attributes = struct.pack("=IIQ", fd, len(buffer), _address(buffer))
    _bpf(_INFO_BY_FD, attributes, "bpf: object info")


def program_id(fd: int) -> int:
    """The number of a loaded program."""
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    _info(fd, buffer)
    return struct.unpack_from("=I", buffer, 4)[0]


def program_name(number: int) -> str:
    """The name of a loaded program, at most 15 letters. OSError ENOENT when it is gone."""
    fd = program_by_id(number)
    try:
        buffer = ctypes.create_string_buffer(_INFO_BYTES)
        _info(fd, buffer)
    finally:
        os.close(fd)
    return buffer.raw[64:80].split(b"\0", 1)[0].decode()


def map_info(fd: int) -> MapInfo:
    """Name, sizes and number of a map."""
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    _info(fd, buffer)
    kind, number, key, value, entries, flags = struct.unpack_from("=6I", buffer)
    name = buffer.raw[24:40].split(b"\0", 1)[0].decode()
    return MapInfo(number, kind, key, value, entries, flags, name)


def program_maps(fd: int) -> list[int]:
    """The numbers of the maps that a program uses (struct bpf_prog_info: nr_map_ids, map_ids)."""
    ids = (ctypes.c_uint32 * 64)()
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    struct.pack_into("=IQ", buffer, 52, len(ids), ctypes.addressof(ids))
    _info(fd, buffer)
    count = struct.unpack_from("=I", buffer, 52)[0]
    return list(ids[: min(count, len(ids))])


@contextmanager
def maps_of_program(number: int) -> Generator[dict[str, Map]]:
    """The maps of a loaded program by name, open while the block runs."""
    found: dict[str, Map] = {}
    fd = program_by_id(number)
    try:
        for map_number in program_maps(fd):
            opened = Map.by_id(map_number)
            found[map_info(opened.fd).name] = opened
        yield found
    finally:
        os.close(fd)
        for opened in found.values():
            opened.close()
