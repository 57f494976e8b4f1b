"""What the random choices of a fault are drawn from.

While a plan is made, one seed is in force (a context variable), and it is written into the plan. A
fault asks for a number of its own and puts it into its changes, so that whoever acts later draws
from that: the same seed gives the same choices.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[int | None] = ContextVar("seed", default=None)


def new() -> int:
    """A seed for an order that names none."""
    return secrets.randbits(48)


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Put a seed in force for the block."""
    token = _current.set(seed)
    try:
        yield
    finally:
        _current.reset(token)


def seed(what: str = "") -> int:
    """The number of one part of a fault: other parts of it draw from other numbers."""
    now = _current.get()
    if now is None:
        return new()
    drawn = hashlib.sha256(f"{now}\0{what}".encode()).digest()
    return int.from_bytes(drawn[:6])
