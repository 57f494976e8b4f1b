"""Who asked for something: written into it by our webhook, and signed.

A Fault is carried out with our rights, but it may do only what whoever asked for it may do. The API
server tells who that is while the object is being made, and never again; so it is kept in the
object. The signature covers what is asked for: who changes that becomes the one who asked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.notes import annotations_of

ANNOTATION = "faultline.dev/requester"
_MARKED: dict[str, frozenset[str]] = {
    "Run": frozenset({"abort", "pause", "signals", "approvals"}),
    "Schedule": frozenset({"paused"}),
}
"""What of a spec others may say to it without asking for anything."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Somebody, as the API server knows them."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    via: str = ""  # what they asked for, if the operator made this of it: Run/NAMESPACE/NAME

    @classmethod
    def of(cls, told: Object) -> Requester:
        """From `userInfo` of a review."""
        extra = cast("dict[str, list[str]]", told.get("extra") or {})
        return cls(
            str(told.get("username") or ""),
            tuple(cast("list[str]", told.get("groups") or [])),
            str(told.get("uid") or ""),
            {name: tuple(values) for name, values in extra.items()},
        )

    def by_way_of(self, owner: str) -> Requester:
        """The same, who asked for the owner."""
        return replace(self, via=owner)


class Signer:
    """Signs, and sees what was signed."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, each: Object, requester: Requester) -> str:
        """The annotation for an object that is asked for by somebody."""
        told = {"by": _plain(requester), "mac": self._mac(each, requester)}
        return json.dumps(told, separators=(",", ":"), sort_keys=True)

    def requester(self, each: Object) -> Requester | None:
        """Who asked for an object; None if nobody did so through our webhook."""
        try:
            told: Any = json.loads(annotations_of(each).get(ANNOTATION, ""))
            by = told["by"]
            extra = {str(k): tuple(map(str, v)) for k, v in by["extra"].items()}
            groups = tuple(map(str, by["groups"]))
            found = Requester(str(by["user"]), groups, str(by["uid"]), extra, str(by["via"]))
            signed = str(told["mac"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if hmac.compare_digest(signed, self._mac(each, found)) else None

    def path(self) -> str:
        """The first step of every address of ours: who does not know it is answered nothing."""
        return hmac.new(self._secret, b"path", hashlib.sha256).hexdigest()[:40]

    def _mac(self, each: Object, requester: Requester) -> str:
        kind, space = str(each.get("kind")), str(metadata(each).get("namespace") or "")
        # Not the name: before 1.27 the server gives generated ones only afterwards.
        told = [kind, space, essence(kind, each.get("spec")), _plain(requester)]
        text = json.dumps(told, separators=(",", ":"), sort_keys=True)
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def essence(kind: str, spec: Any) -> Any:
    """What is asked for, without what may be said to it later and without what says nothing."""
    if not isinstance(spec, dict):
        return spec
    marked = _MARKED.get(kind, frozenset())
    return _short({k: v for k, v in cast(Object, spec).items() if k not in marked})


def _short(value: Any) -> Any:
    """Some servers take an empty text for null, and null for nothing."""
    if isinstance(value, dict):
        made = {key: _short(inner) for key, inner in cast(Object, value).items()}
        return {key: inner for key, inner in made.items() if inner not in (None, "")}
    if isinstance(value, list):
        return [_short(inner) for inner in cast("list[Any]", value)]
    return value


def _plain(requester: Requester) -> Object:
    return json.loads(json.dumps(asdict(requester)))


# ---------------------------------------------------------------------- requests of the server


def same(request: Object) -> bool:
    """Whether a change of an object asks for nothing new."""
    kind = kind_of(request)
    old, new = old_of(request), new_of(request)
    return essence(kind, old.get("spec")) == essence(kind, new.get("spec"))


def kind_of(request: Object) -> str:
    return str(cast(Object, request.get("kind") or {}).get("kind") or "")


def new_of(request: Object) -> Object:
    return cast(Object, request.get("object") or {})


def old_of(request: Object) -> Object:
    return cast(Object, request.get("oldObject") or {})
