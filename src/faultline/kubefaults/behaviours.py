"""What a fault of admission does to a request: plain data, and the decision whether one is meant.

It stands in an annotation of the webhook configuration of the fault, so that whichever operator is
asked knows it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from faultline.kubeapi.model import Object
from faultline.kubefaults.fields import Field, Path, edit_all, read

Do = Literal["mutate", "reject", "delay", "error", "timeout"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What is done, and to which of the requests that the server sends."""

    do: Do
    percent: float = 100.0
    seed: str = ""
    users: tuple[str, ...] = ()  # patterns; none: everybody
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of objects
    code: int = 403
    message: str = ""
    seconds: float = 0.0  # of a delay, or until a time-out
    set: Object = field(default_factory=dict[str, Any])  # RFC 7386
    patch: tuple[Object, ...] = ()  # RFC 6902

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Behaviour:
        """Raises ValueError, TypeError or KeyError for what is none."""
        told = cast("dict[str, Any]", json.loads(text))
        listed: dict[str, Any] = {
            name: tuple(told[name]) for name in ("users", "groups", "names", "patch")
        }
        whole: dict[str, Any] = {**told, **listed}
        return cls(**whole)

    def means(self, request: Object) -> bool:
        """Whether a request is one of those that are meant."""
        who = cast(Object, request.get("userInfo") or {})
        groups = cast("list[str]", who.get("groups") or [])
        return (
            _fits(self.users, [str(who.get("username") or "")])
            and _fits(self.groups, groups)
            and _fits(self.names, [str(request.get("name") or "")])
        )

    def edits(self, each: Object) -> list[Object]:
        """The JSON Patch that makes of an object what was asked for."""
        fields = [Field(path, read(each, path), value) for path, value in leaves(self.set)]
        changed = [one for one in fields if one.before != one.after]
        return [*edit_all(each, changed, back=False), *self.patch]

    def patched(self, each: Object) -> dict[str, str]:
        """The same as a part of an answer; nothing where there is nothing to change."""
        edits = self.edits(each)
        if not edits:
            return {}
        text = base64.b64encode(json.dumps(edits).encode()).decode()
        return {"patchType": "JSONPatch", "patch": text}


def leaves(patch: Object, above: Path = ()) -> list[tuple[Path, Any]]:
    """The fields of a merge patch, one by one."""
    found: list[tuple[Path, Any]] = []
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            found += leaves(cast(Object, value), (*above, name))
        else:
            found.append(((*above, name), cast(Any, value)))
    return found


def _fits(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, each) for each in patterns for name in names)
