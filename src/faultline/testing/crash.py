"""Being killed at any instant: runs an injection in a child that the kernel kills at a chosen step.

Every place where something durable or visible happens is a *point*: before and after each journal
write, each word to a keeper, each change. `points` counts them in a run that is let through;
`injected_until` kills the child with SIGKILL at one of them. The child is forked from a warm
process, so a point costs some ten milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from unittest import mock

from faultline.changes import keepers
from faultline.changes.journal import Journal
from faultline.changes.kind import kinds
from faultline.errors import Unsupported
from faultline.injection.injector import Injector
from faultline.injection.plan import Order

Act = Callable[[Injector], Any]


class Points:
    """Counts what happens, and kills this process at the `fatal`-th."""

    def __init__(self, fatal: int = -1) -> None:
        self.fatal = fatal
        self.names: list[str] = []

    def reach(self, name: str) -> None:
        """One more thing is about to happen or has just happened."""
        if len(self.names) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with a point before and one after it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {name}")
            result = function(*args, **kwargs)
            self.reach(f"after {name}")
            return result

        return run

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Put points around the journal, the keepers and every kind of change."""
        with contextlib.ExitStack() as stack:
            for owner, attribute, name in (
                (Journal, "add", "journal add"),
                (Journal, "change", "journal change"),
                (keepers, "tell", "a word to a keeper"),
                (keepers, "hear", "an answer of a keeper"),
            ):
                watched = self.around(name, getattr(owner, attribute))
                stack.enter_context(mock.patch.object(owner, attribute, watched))
            for kind in kinds().values():
                watched = self.around(f"apply {kind.name}", kind.apply)
                stack.enter_context(mock.patch.object(kind, "apply", watched))
            yield


def points(order: Order, state: Path) -> list[str]:
    """The points of an injection, from a run that is let through and recovered."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        counted = Points()
        _child(lambda: _inject(order, state, counted), write, counted)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        told = json.loads(answer.read() or b"null")
    os.waitpid(pid, 0)
    if "unsupported" in (told or {}):
        raise Unsupported(told["unsupported"])
    if not told:
        raise RuntimeError("the injection that was let through failed; its words are above")
    return told["names"]


def injected_until(order: Order, state: Path, point: int) -> bool:
    """Inject in a child that is killed at `point`; True if it was, False if it got through."""
    pid = os.fork()
    if pid == 0:
        counted = Points(point)
        _child(lambda: _inject(order, state, counted), -1, counted)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def _inject(order: Order, state: Path, counted: Points) -> None:
    with Injector(state) as injector:
        plan = injector.plan(order)
        with counted.watching():
            injector.carry_out(plan)


def _child(act: Callable[[], None], answer: int, counted: Points) -> None:
    """Run in the child and end it without the parent's clean-up."""
    status, told = 1, {}
    try:
        act()
        status, told = 0, {"names": counted.names}
    except Unsupported as error:
        status, told = 0, {"unsupported": error.message}
    finally:
        if status:
            traceback.print_exc()
        if answer >= 0:
            os.write(answer, json.dumps(told).encode())
        os._exit(status)
