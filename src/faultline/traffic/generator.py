"""The process that sends: `python -P -m faultline.traffic.generator PARENT`.

Its own process, so that the engine's work does not delay requests and the requests do not delay the
engine. It is told what to do by lines on its standard input (the load, `go NANOSECONDS`, `end`:
send no more but wait for answers, `stop`) and answers with lines of JSON. It ends with the load, on
`stop`, when its input is closed, when its parent dies (prctl(2), PR_SET_PDEATHSIG), and at the
latest by a timer of the kernel.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import sys

from faultline.kernel import syscalls
from faultline.kernel.clock import now
from faultline.traffic.driver import CannotBegin, driver_of
from faultline.traffic.model import SECOND, Load
from faultline.traffic.pacing import Pacer
from faultline.traffic.schedule import Curve
from faultline.traffic.sending import Sender

_GRACE = 30 * SECOND  # to begin, and to finish the last second


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Generator:
    """Runs one load on the event loop, as the parent says."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._told = bytearray()
        self._start: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._stop = asyncio.Event()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(0, False)
        loop.add_reader(0, self._hear)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._orphaned, os.getppid())

    def _orphaned(self, parent: int) -> None:
        # The signal also comes when only the thread that started us has ended.
        if os.getppid() != parent:
            os._exit(1)

    def _hear(self) -> None:
        data = os.read(0, 4096)
        if not data:
            os._exit(1)  # nobody is left to report to
        self._told += data
        while b"\n" in self._told:
            line, _, rest = bytes(self._told).partition(b"\n")
            self._told[:] = rest
            word, _, value = line.decode().partition(" ")
            if word == "go" and not self._start.done():
                self._start.set_result(int(value))
            elif word == "end":
                self._end.set()
            elif word == "stop":
                self._stop.set()

    async def run(self) -> None:
        """From `ready` to `done`; raises what is a fault of ours."""
        self._listen()
        stopping = asyncio.create_task(self._stop.wait())
        async with Sender(self._load, driver_of(self._load)) as sender:
            _say(json.dumps({"ready": os.getpid()}))
            await asyncio.wait({self._start, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            start = self._start.result()
            ticking = asyncio.create_task(self._tick(sender, start))
            sending = asyncio.create_task(self._send(sender, start))
            ends = {stopping, ticking, sending, sender.broken}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            # The last request may be answered before the time is over in which it was one of many.
            whole = sending in done and not self._end.is_set() and not sender.drained
            until = self._load.duration if whole else now() - start
            self._cut(sender, (now() - start) // SECOND, until)
            for task in (ticking, sending):
                task.cancel()
        _say(json.dumps({"done": True}))

    def _cut(self, sender: Sender, index: int, until: int) -> None:
        until = min(until, self._load.duration)
        _say(sender.tally.cut(max(index, 0), max(until, 0), sender.waits()).to_line())

    async def _tick(self, sender: Sender, start: int) -> None:
        index = 0
        while True:
            await asyncio.sleep((start + (index + 1) * SECOND - now()) / SECOND)
            self._cut(sender, index, now() - start)
            # After a hold-up the seconds in which nothing could be said are left out.
            index = max(index + 1, (now() - start) // SECOND)

    async def _send(self, sender: Sender, start: int) -> None:
        load = self._load
        end = start + load.duration
        curve = Curve(load.rate or load.concurrency, load.stages)
        pacer: Pacer | None = None
        if load.rate:
            pacer = Pacer(curve, (start, end), (load.index, load.workers), sender.fire)
            pacer.begin()
            sending = asyncio.create_task(pacer.finished.wait())
        else:
            await asyncio.sleep((start - now()) / SECOND)
            sending = asyncio.create_task(self._crowd(sender, curve, start, end))
        ending = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait({sending, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._end.is_set():
                sender.end()
            ending.cancel()
            if pacer:
                pacer.close()
        await sending
        await sender.finish()

    @staticmethod
    async def _crowd(sender: Sender, curve: Curve, start: int, end: int) -> None:
        await sender.crowd(curve, start, end)
        await sender.finish()


async def _generate(load: Load) -> None:
    await Generator(load).run()


def main() -> int:
    """Read the load, arm the bounds, send."""
    parent = int(sys.argv[1])
    syscalls.set_parent_death_signal(signal.SIGHUP)
    if os.getppid() != parent:
        return 1
    load = Load.from_line(sys.stdin.buffer.readline())
    syscalls.arm_kill_timer(now() + load.duration + load.timeout + _GRACE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()  # what was imported need not be searched for garbage while requests are due
    try:
        _run(load)
    except CannotBegin as error:
        _say(json.dumps({"failed": str(error)}))
        return 1
    return 0


def _run(load: Load) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(_generate(load))
    else:
        uvloop.run(_generate(load))


if __name__ == "__main__":
    status = main()
    # At once: a thread of a driver may still wait for a target that does not answer.
    sys.stdout.flush()
    os._exit(status)
