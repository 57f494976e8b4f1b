"""All choices of a run come from one number, so that another run with it makes the same ones.

Each place that chooses draws from a number of its own, which follows from that of the run and its
name alone: what one of them draws does not depend on what others drew before.
"""

from __future__ import annotations

import hashlib
import secrets

LARGEST = 2**53 - 1  # what a JSON number holds everywhere


def new() -> int:
    """A seed for a run that names none; short enough to be read out."""
    return secrets.randbits(32)


def derived(seed: int | None, *path: str | int) -> int | None:
    """The number of one place; None for a run of a version that had no seed."""
    if seed is None:
        return None
    text = "\0".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
