"""What undoes does not wait behind what is slow: it has threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

THREADS = 16
"""How much is undone at the same time. All other calls share the 40 threads of the server."""

_T = TypeVar("_T")
_limiter: RunVar[CapacityLimiter] = RunVar("faultline urgent")


async def urgently(act: Callable[[], _T]) -> _T:
    """Do it in a thread, however many calls wait for theirs."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await to_thread.run_sync(act, limiter=limiter)
