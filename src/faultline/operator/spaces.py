"""Namespaces, and what somebody has said of them: never, or only where it is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from faultline.kubeapi.model import Object
from faultline.kubefaults.notes import annotations_of
from faultline.operator.cluster import is_protected

ALLOW = "faultline.dev/allow"
"""The annotation of a namespace that allows faults in it, where that is demanded."""


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace."""

    protected: bool = False
    allowed: bool = False


def space_of(found: Object) -> Space:
    """A Namespace of the API server."""
    return Space(is_protected(found), annotations_of(found).get(ALLOW) == "true")


@dataclass(frozen=True, slots=True)
class Policy:
    """Where faults may act."""

    own: str = "faultline"  # the namespace of the operator
    opt_in: bool = False  # only where the namespace is annotated
    protect: tuple[str, ...] = ()  # names or patterns of namespaces that are never hit

    def closed(self, name: str, space: Space | None) -> str:
        """Why nothing in this namespace may be hit; empty if something may."""
        if name == self.own:
            return f"{name} is the namespace of Faultline"
        if space is not None and space.protected:
            return f"the namespace {name} is annotated as protected"
        if any(fnmatchcase(name, each) for each in self.protect):
            return f"the operator protects the namespace {name}"
        if self.opt_in and (space is None or not space.allowed):
            command = f"kubectl annotate namespace {name} {ALLOW}=true"
            return f"the namespace {name} does not allow faults: {command}"
        return ""

    def all_closed(self, spaces: Mapping[str, Space]) -> dict[str, str]:
        """Every namespace in which nothing may be hit, and why."""
        return {name: why for name, each in spaces.items() if (why := self.closed(name, each))}
