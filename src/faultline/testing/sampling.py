"""What a run of the suite leaves out: a sample that changes from run to run; all of it with --full.

The seed is printed by a failure; repeat a sample with FAULTLINE_SEED=N.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

FULL = "FAULTLINE_FULL"
SEED_VARIABLE = "FAULTLINE_SEED"

# In the environment, so that the second kernel and the other lane draw the same.
SEED = int(os.environ.setdefault(SEED_VARIABLE, str(time.time_ns() // 10**9)))


def examples(few: int, many: int) -> int:
    """How many examples a property is tried with: `many` with --full."""
    return many if os.environ.get(FULL) else few


def sample(items: Sequence[T], count: int, salt: str) -> list[T]:
    """`count` of the items, in their order; the same for the same seed and salt."""
    drawn = random.Random(f"{SEED} {salt}").sample(range(len(items)), min(count, len(items)))
    return [items[index] for index in sorted(drawn)]
