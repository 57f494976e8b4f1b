"""Quantities with units: integers inside, text with a unit outside.

`Duration` counts nanoseconds, `Size` bytes, `Rate` bits per second, `Percent` is a plain number of
hundredths. A bare number is refused with the units named: `100` has been microseconds, milliseconds
and seconds in three tools of this field. Standard library only: the keeper reads records with it.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

from faultline.errors import InvalidParameter

_NUMBER = r"\d+(?:\.\d+)?"


def _total(parts: list[tuple[str, int]]) -> int:
    """The exact sum of decimal numbers times their units, a half rounded to the even neighbour."""
    split = [(*number.partition(".")[::2], unit) for number, unit in parts]
    digits = max(len(fraction) for _, fraction, _ in split)
    scale = 10**digits
    scaled = sum(int(whole + fraction.ljust(digits, "0")) * unit for whole, fraction, unit in split)
    total, rest = divmod(scaled, scale)
    return total + (2 * rest > scale or (2 * rest == scale and total % 2 == 1))


class _Quantity(int):
    """An integer that is read from and written as text with a unit."""

    noun: ClassVar[str]
    units: ClassVar[dict[str, int]]  # what is read, in lower case
    written: ClassVar[tuple[tuple[str, int], ...]]  # what is written, largest first
    example: ClassVar[str]
    zero: ClassVar[str]  # the unit that nought is written with

    @classmethod
    def parse(cls, text: object, field: str = "") -> Self:
        """Read text such as '1.5s'; raises InvalidParameter naming the field and the units."""
        if isinstance(text, cls):
            return text
        names = ", ".join(dict.fromkeys(cls.units))
        expected = f"a {cls.noun} with a unit ({names}), such as {cls.example}"
        name = field or cls.noun
        if isinstance(text, (int, float)) or re.fullmatch(r"-?[\d.]+", str(text).strip()):
            raise InvalidParameter(name, text, expected, hint="a bare number has no unit")
        clean = str(text).strip().lower().replace(" ", "")
        parts = re.findall(rf"({_NUMBER})([a-z/]+)", clean)
        if not parts or "".join(n + u for n, u in parts) != clean:
            raise InvalidParameter(name, text, expected)
        if any(unit not in cls.units for _, unit in parts):
            raise InvalidParameter(name, text, expected)
        return cls(_total([(n, cls.units[unit]) for n, unit in parts]))

    def __str__(self) -> str:
        value = int(self)
        if not value:
            return f"0{self.zero}"
        return next(f"{value // n}{unit}" for unit, n in self.written if value % n == 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @property
    def short(self) -> str:
        """Three significant digits for people; not exact."""
        value = int(self)
        for unit, factor in self.written:
            if abs(value) >= factor:
                return f"{value / factor:.3g}{unit}"
        return str(self)


class Duration(_Quantity):
    """A length of time in nanoseconds: '100ms', '1.5s', '1h30m'."""

    noun = "duration"
    zero = "s"
    example = "100ms"
    units: ClassVar[dict[str, int]] = {
        "ns": 1,
        "us": 1_000,
        "ms": 1_000_000,
        "s": 10**9,
        "m": 60 * 10**9,
        "h": 3600 * 10**9,
        "d": 86400 * 10**9,
    }
    written = tuple(reversed(tuple(units.items())))

    @property
    def seconds(self) -> float:
        return int(self) / 1e9

    @classmethod
    def of_seconds(cls, seconds: float) -> Self:
        return cls(round(seconds * 1e9))


class Size(_Quantity):
    """A number of bytes: '512MiB', '10kB', '4096B'."""

    noun = "size"
    zero = "B"
    example = "512MiB"
    units: ClassVar[dict[str, int]] = {
        "b": 1,
        "kb": 10**3,
        "mb": 10**6,
        "gb": 10**9,
        "tb": 10**12,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
        "tib": 2**40,
    }
    written = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))


class Rate(_Quantity):
    """Bits per second on the wire: '10mbit', '1.5gbit'."""

    noun = "rate"
    zero = "bit"
    example = "10mbit"
    units: ClassVar[dict[str, int]] = {
        "bit": 1,
        "kbit": 10**3,
        "mbit": 10**6,
        "gbit": 10**9,
        "tbit": 10**12,
    }
    written = (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3), ("bit", 1))


class ByteRate(_Quantity):
    """Bytes per second of a device: '1MiB/s', '500kB/s'."""

    noun = "byte rate"
    zero = "B/s"
    example = "1MiB/s"
    units: ClassVar[dict[str, int]] = {f"{unit}/s": n for unit, n in Size.units.items()}
    written = tuple((f"{unit}/s", n) for unit, n in Size.written)


class Percent(float):
    """A share in hundredths: '10%', '0.1%'."""

    @classmethod
    def parse(cls, text: object, field: str = "") -> Self:
        if isinstance(text, cls):
            return text
        found = re.fullmatch(rf"({_NUMBER})\s*%", str(text).strip())
        if not found:
            expected = "a percentage with its sign, such as 10%"
            raise InvalidParameter(field or "percent", text, expected)
        return cls(found[1])

    @property
    def ratio(self) -> float:
        return float(self) / 100

    def __str__(self) -> str:
        text = repr(float(self))
        if "e" in text:
            from decimal import Decimal  # 0.4 MiB that a keeper does not need

            text = f"{Decimal(text):f}"
        return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"

    def __repr__(self) -> str:
        return f"Percent({str(self)!r})"
