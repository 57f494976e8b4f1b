"""A small eBPF assembler: registers, labels, and the instructions that our programs need.

Programs are made at run time, so no compiler and no prebuilt object has to be installed. The
encoding is that of Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum


class Reg(IntEnum):
    """R0 answers, r1 to r5 are arguments and lost in calls, r6 to r9 are kept, r10 is the stack."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Reg

B, H, W, DW = 0x10, 0x08, 0x00, 0x18  # sizes of loads and stores: 1, 2, 4, 8 bytes

_LD, _LDX, _ST, _STX, _JMP, _ALU64 = 0x00, 0x01, 0x02, 0x03, 0x05, 0x07
_ALU32 = 0x04
_BY_REGISTER = 0x08
_MEM, _ATOMIC = 0x60, 0xC0
_FETCH = 0x01
_TO_BE = 0xDC
_PSEUDO_MAP_FD = 1

_ARITHMETIC = {
    "add": 0x00, "sub": 0x10, "mul": 0x20, "div": 0x30, "or": 0x40, "and": 0x50,
    "lsh": 0x60, "rsh": 0x70, "mod": 0x90, "xor": 0xA0, "mov": 0xB0,
}  # fmt: skip
_CONDITIONS = {
    "eq": 0x10, "gt": 0x20, "ge": 0x30, "set": 0x40, "ne": 0x50, "lt": 0xA0, "le": 0xB0,
}  # fmt: skip


def _encode(opcode: int, dst: int, src: int, offset: int, immediate: int) -> bytes:
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    signed = immediate - (1 << 32) if immediate >= 1 << 31 else immediate
    return struct.pack("=BBhi", opcode, registers, offset, signed)


class Assembler:
    """Instructions in order, jumps by label. All arithmetic is on 64 bits."""

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []
        self._unique = 0

    def __len__(self) -> int:
        return len(self._code)

    def fresh(self, stem: str) -> str:
        """A label name that was not used before."""
        self._unique += 1
        return f"{stem}.{self._unique}"

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"the label {name} is there already")
        self._labels[name] = len(self._code)

    def _emit(self, opcode: int, dst: int, src: int, offset: int, immediate: int) -> None:
        self._code.append(_encode(opcode, dst, src, offset, immediate))

    def alu(self, operation: str, dst: Reg, value: Reg | int) -> None:
        """Do dst = dst OPERATION value; the machine sign-extends an integer from 32 bits."""
        code = _ARITHMETIC[operation] | _ALU64
        if isinstance(value, Reg):
            self._emit(code | _BY_REGISTER, dst, value, 0, 0)
        else:
            self._emit(code, dst, 0, 0, value)

    def mov(self, dst: Reg, value: Reg | int) -> None:
        self.alu("mov", dst, value)

    def mov32(self, dst: Reg, value: int) -> None:
        """Set dst with the upper half zero, for masks and marks with the top bit set."""
        self._emit(_ARITHMETIC["mov"] | _ALU32, dst, 0, 0, value)

    def big_endian(self, dst: Reg, bits: int) -> None:
        """Between this machine's order and that of the network; `bits` is 16, 32 or 64."""
        self._emit(_TO_BE, dst, 0, 0, bits)

    def mov64(self, dst: Reg, value: int) -> None:
        """A 64-bit constant (two slots)."""
        self._wide(dst, 0, value & 0xFFFFFFFF, value >> 32)

    def load_map(self, dst: Reg, fd: int) -> None:
        """The map behind a descriptor; the kernel puts its address in at load time."""
        self._wide(dst, _PSEUDO_MAP_FD, fd, 0)

    def _wide(self, dst: Reg, src: int, low: int, high: int) -> None:
        self._emit(_LD | DW, dst, src, 0, low)
        self._emit(0, 0, 0, 0, high)

    def load(self, size: int, dst: Reg, base: Reg, offset: int) -> None:
        self._emit(_LDX | size | _MEM, dst, base, offset, 0)

    def store(self, size: int, base: Reg, offset: int, value: Reg | int) -> None:
        if isinstance(value, Reg):
            self._emit(_STX | size | _MEM, base, value, offset, 0)
        else:
            self._emit(_ST | size | _MEM, base, 0, offset, value)

    def atomic_add(self, base: Reg, offset: int, value: Reg, *, fetch: bool = False) -> None:
        """Add to 8 bytes of memory; with `fetch` (Linux 5.12) `value` becomes what was there."""
        self._emit(_STX | DW | _ATOMIC, base, value, offset, _FETCH if fetch else 0)

    def jump(self, condition: str, left: Reg, right: Reg | int, to: str) -> None:
        """Jump when LEFT condition RIGHT, both unsigned; `set` tests bits."""
        self._jumps.append((len(self._code), to))
        code = _CONDITIONS[condition] | _JMP
        if isinstance(right, Reg):
            self._emit(code | _BY_REGISTER, left, right, 0, 0)
        else:
            self._emit(code, left, 0, 0, right)

    def goto(self, to: str) -> None:
        self._jumps.append((len(self._code), to))
        self._emit(_JMP, 0, 0, 0, 0)

    def call(self, helper: int) -> None:
        self._emit(0x80 | _JMP, 0, 0, 0, helper)

    def exit(self, answer: int | None = None) -> None:
        """Leave the program; with `answer` in r0."""
        if answer is not None:
            self.mov(R0, answer)
        self._emit(0x90 | _JMP, 0, 0, 0, 0)

    def bytes(self) -> bytes:
        """The finished program. ValueError for a jump to nowhere or further than 32767 slots."""
        code = list(self._code)
        for at, name in self._jumps:
            if name not in self._labels:
                raise ValueError(f"there is no label {name}")
            distance = self._labels[name] - at - 1
            if not -32768 <= distance <= 32767:
                raise ValueError(f"the jump to {name} is too far: {distance}")
            code[at] = code[at][:2] + struct.pack("=h", distance) + code[at][4:]
        return b"".join(code)
