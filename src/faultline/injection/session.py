"""A fault for the length of a block of Python, tied to the process that runs it."""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from faultline.changes.model import End, Record
from faultline.errors import NotEffective, RecoveryIncomplete, UsageError
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect, Reading

A = ParamSpec("A")
R = TypeVar("R")


class FaultSession:
    """Context manager and decorator; see `faultline.fault`. May be entered again after it was left.

    As a decorator it gives each call a fault of its own, also of a coroutine function or of a
    generator function; the event loop stands still while a fault is put in place or undone.
    """

    def __init__(self, order: Order, must_be_effective: bool) -> None:
        self._order = order
        self._strict = must_be_effective
        self._injector: Injector | None = None
        self._pid = 0  # the process that put it in place
        self.record: Record | None = None
        self.reading: Reading | None = None

    @property
    def uid(self) -> str:
        """The uid of the fault that is in place, or was last; empty before."""
        return self.record.uid if self.record else ""

    def __enter__(self) -> Self:
        if self._injector is not None:
            raise UsageError(
                f"{self._order.fault} of this object is in place already: {self.uid}",
                hint="call faultline.fault(...) once for each block; faults may overlap",
            )
        self.record = self.reading = None
        self._injector, self._pid = Injector(), os.getpid()
        _entered.add(self)
        try:
            self.record = self._injector.carry_out(self._injector.plan(self._order), tied=True)
            self.reading = self._injector.observe(self.record.uid)
            if self._strict and self.reading.effect is not Effect.EFFECTIVE:
                raise NotEffective(
                    f"{self._order.fault} is {self.reading.effect}: asked {self.reading.asked}, "
                    f"measured {self.reading.measured or 'nothing'}; {self.reading.reason}",
                    hint="pass must_be_effective=False to go on all the same",
                )
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._injector is None or self._pid != os.getpid():
            return  # a forked child leaves the block as well; the fault is its parent's
        injector, self._injector = self._injector, None
        _entered.discard(self)
        with injector:
            if self.record is None:
                return
            self.record = injector.recover(self.record.uid)
            left = injector.residue(self.record.uid)
        if self.record.end is End.PERSON or left:
            raise RecoveryIncomplete(
                f"fault {self.uid} is not gone: {'; '.join(left) or self.record.end}",
                hint=f"look: faultline query {self.uid}",
            )

    def untie(self) -> None:
        """In a forked child: the fault ends with the process that put it in place, not with this
        one.
        """
        if self._injector is not None:
            self._injector.untie()

    def __call__(self, function: Callable[A, R]) -> Callable[A, R]:
        """As a decorator: each call runs inside a fault of its own."""
        if inspect.isclass(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function.__qualname__} cannot be decorated: the fault would be over too early",
                hint="decorate functions or methods, or use `with faultline.fault(...)` inside",
            )
        decorated: Any = function  # what it gives decides how it is run; the type stays the same

        @functools.wraps(function)
        def run(*args: A.args, **kwargs: A.kwargs) -> R:
            with self._another():
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def wait(*args: A.args, **kwargs: A.kwargs) -> Any:
            with self._another():
                given: Any = await decorated(*args, **kwargs)
            return given

        @functools.wraps(function)
        def go_through(*args: A.args, **kwargs: A.kwargs) -> Generator[Any, Any, Any]:
            with self._another():
                return cast("Any", (yield from decorated(*args, **kwargs)))

        chosen: Any = run
        if inspect.iscoroutinefunction(function):
            chosen = wait
        elif inspect.isgeneratorfunction(function):
            chosen = go_through
        return chosen

    def _another(self) -> FaultSession:
        return FaultSession(replace(self._order), self._strict)


_entered: weakref.WeakSet[FaultSession] = weakref.WeakSet()
"""What is in place now, for a child that is forked meanwhile (a pool of processes in the block): it
inherits the connections that tie a fault to this process, and would hold them after our death."""


def _untie() -> None:
    for session in list(_entered):
        session.untie()


os.register_at_fork(after_in_child=_untie)
