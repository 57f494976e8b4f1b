"""Rights in a cluster: what somebody must be allowed to do to ask for a fault.

What a fault of objects demands follows from its changes: whoever asks must be allowed to make them.
https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faultline.kubefaults.change import Change


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource."""

    verb: str
    resource: str  # the plural
    group: str = ""
    part: str = ""  # a subresource
    namespace: str = ""  # empty: of the cluster
    name: str = ""  # empty: any

    @classmethod
    def read(cls, words: str, namespace: str = "", name: str = "") -> Right:
        """From `create pods/exec`, `delete deployments.apps`."""
        verb, _, what = words.partition(" ")
        resource, _, group = what.partition(".")
        plural, _, part = resource.partition("/")
        return cls(verb, plural, group, part, namespace, name)

    def __str__(self) -> str:
        part = f"/{self.part}" if self.part else ""
        group = f".{self.group}" if self.group else ""
        what = f"{self.verb} {self.resource}{part}{group}"
        return f"{what} in {self.namespace}" if self.namespace else what


_VERBS = {
    "patch": ("patch",),
    "create": ("create",),
    "delete": ("delete",),
    "evict": ("create",),
    "many": ("create",),
}
_LOADS = {"watches": ("watch",), "lists": ("list",), "events": ("create",)}


def of_changes(changes: Sequence[Change]) -> list[Right]:
    """What somebody needs to make these changes with their own hands."""
    found: dict[Right, None] = {}
    for each in changes:
        part = "eviction" if each.do == "evict" else each.part
        verbs = _VERBS.get(each.do, ("*",))
        if each.do == "delete" and each.object is not None:
            verbs = ("delete", "create")
        elif each.do == "load":
            verbs = _LOADS.get(str(each.extra.get("what")), ("*",))
        named = each.name if each.do in ("patch", "delete", "evict") else ""
        for verb in verbs:
            where = each.namespace if each.kind.namespaced and not _wide(each) else ""
            found[Right(verb, each.kind.plural, each.kind.group, part, where, named)] = None
    return list(found)


def _wide(change: Change) -> bool:
    """Whether it watches or lists what is in all namespaces."""
    path = change.extra.get("path") if change.do == "load" else None
    return path is not None and "/namespaces/" not in str(path)
