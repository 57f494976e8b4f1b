"""The shape of a fault: parameters, a plan of reversible changes, and a measurement.

A family is one module in `faultline.faults`; a fault in it is one class derived from `Fault`. The
command line, schemas, reference pages and generated tests are derived from what is declared here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from faultline.api.params import Params
from faultline.changes.model import Change, Record
from faultline.errors import Bug
from faultline.injection.reading import Reading
from faultline.places.model import KINDS, Place

P = TypeVar("P", bound=Params)


class Ending(StrEnum):
    """What ends a fault at its deadline if everything of ours is killed (promise 3), best first."""

    KERNEL = "kernel-owned"
    SELF = "self-ending"
    KEEPER = "keeper-owned"
    INSTANT = "instant"  # nothing lasts: a kill


class Fault(ABC, Generic[P]):
    """One fault. Its docstring is its reference page, the first line the command's help."""

    id: ClassVar[str]  # 'family.fault', what the target suffers
    ending: ClassVar[Ending]
    does: ClassVar[str]  # what it does to the kernel
    cannot: ClassVar[str]  # what it cannot do
    measures: ClassVar[str]  # how the effect is measured
    restores: ClassVar[str]  # what undo puts back
    example: ClassVar[dict[str, str]]  # parameters of a runnable example, as text
    places: ClassVar[frozenset[str]] = frozenset(KINDS)  # the kinds of place that it can act in
    outlives_target: ClassVar[bool] = False  # goes on when the place's process has ended
    lethal: ClassVar[str] = ""  # why it cannot be tried: it ends whatever would try it
    demands: ClassVar[tuple[str, ...]] = ("delete pods",)  # who asks for it on pods of a cluster
    needs: ClassVar[frozenset[str]] = frozenset()  # names of `faultline.injection.needs`
    scratch: ClassVar[str] = (
        "none"  # what the conformance suite must prepare: none, netns, file, ...
    )

    @classmethod
    def params_type(cls) -> type[P]:
        """The parameter model, read from `class X(Fault[XParams])`."""
        bases: tuple[Any, ...] = getattr(cls, "__orig_bases__", ())
        for base in bases:
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Fault):
                return get_args(base)[0]
        raise Bug(f"{cls.__name__} does not say which parameters it takes")

    @abstractmethod
    def plan(self, place: Place, params: P) -> list[Change]:
        """The changes that make this fault. Touches nothing; raises Refused or Unsupported."""

    @abstractmethod
    def observe(self, place: Place, params: P, record: Record) -> Reading:
        """Measure the effect at the target without the user's help."""
