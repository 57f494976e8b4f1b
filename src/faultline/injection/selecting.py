"""Selectors: what of a set is hit, said by somebody else's package, program or endpoint.

A selector names targets as a document does, and may name the rest of the set, which is the control
group. It looks and touches nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError

from faultline.api.params import Params, invalid
from faultline.api.targets import TargetSpec
from faultline.errors import Bug, ObserveFailed
from faultline.injection import extensions, manifest

MOST: Final = 1000
"""Targets that one selector may name, and as many of the rest."""
PATIENCE: Final = 10.0
"""Seconds that a selection may take, unless its manifest allows less."""

P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selector has found."""

    targets: tuple[TargetSpec, ...]
    rest: tuple[TargetSpec, ...] = ()
    """What of the set is not hit: the control group."""
    text: str = ""
    """Why these, for people."""


class Selector(Generic[P]):
    """A selector of an installed package: an entry point `faultline.selectors` names its class."""

    summary: ClassVar[str]
    example: ClassVar[dict[str, Any]] = {}
    """Parameters that the conformance kit tries it with."""

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def select(self, seconds: float) -> Selected:
        """Choose within this time; raises ObserveFailed if that is not possible."""

    @classmethod
    def params_type(cls) -> type[P]:
        """The model of its parameters, from `Selector[ITS_PARAMS]`."""
        return params_of(cls, Selector)


def params_of(cls: type, base: type) -> Any:
    """The parameter model that a class gives to its generic base."""
    for each in getattr(cls, "__orig_bases__", ()):
        origin = get_origin(each)
        if origin is base and isinstance(get_args(each)[0], type):
            return get_args(each)[0]
    raise Bug(f"{cls.__name__} does not say what its parameters are: {base.__name__}[PARAMS]")


def select(name: str, given: Mapping[str, Any], seconds: float = PATIENCE) -> Selected:
    """What a selector finds; raises UnknownName, InvalidParameter or ObserveFailed."""
    if extensions.is_manifest("faultline.selectors", name):
        found, path = manifest.load(name, "selector")
        values = found.values_of(given)
        with extensions.Called(found, path) as called:
            return selected(called.ask("select", values, seconds, found.name), found.name)
    kind: type[Selector[Any]] = extensions.load("faultline.selectors", name)
    chosen = kind(kind.params_type().read(dict(given))).select(seconds)
    return bounded(chosen, name)


def selected(answer: Mapping[str, Any], name: str) -> Selected:
    """An answer of the protocol as targets; raises ObserveFailed for anything else. Pure."""
    targets = _targets(answer.get("targets"), f"{name}: targets")
    rest = _targets(answer.get("rest", []), f"{name}: rest")
    return bounded(Selected(targets, rest, str(answer.get("text", ""))[:300]), name)


def bounded(found: Selected, name: str) -> Selected:
    """The same, if it is not too much and nothing is there twice; raises ObserveFailed."""
    if max(len(found.targets), len(found.rest)) > MOST:
        raise ObserveFailed(f"{name} named more than {MOST} targets")
    both = [each.model_dump_json() for each in (*found.targets, *found.rest)]
    if len(set(both)) != len(both):
        raise ObserveFailed(f"{name} named a target twice, or as one of the rest too")
    return found


def _targets(given: Any, where: str) -> tuple[TargetSpec, ...]:
    if not isinstance(given, list):
        raise ObserveFailed(f"{where}: a list is expected")
    found: list[TargetSpec] = []
    for index, each in enumerate(cast("list[Any]", given)):
        try:
            found.append(TargetSpec.model_validate(each))
        except ValidationError as error:
            raise ObserveFailed(f"{where}: {invalid(error, str(index)).message}") from error
        if found[-1] == TargetSpec():
            raise ObserveFailed(f"{where}: {index} names nothing")
    return tuple(found)
