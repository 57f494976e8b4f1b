"""What an import finds, before it becomes a document: calls in flows, values, and notes.

Texts hold their places as `place(name)`, which no text of a file can hold: so a text that happens
to have braces in it is never taken for a place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BEGIN, END = "\ue000", "\ue001"
PLACE = re.compile(f"{BEGIN}([^{BEGIN}{END}]*){END}")

_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MOST_NOTES = 200
_DEPTH = 8  # of constants within constants
_LONGEST = 1 << 20  # characters of a text with its constants filled in
_SECRET = re.compile(
    r"^(proxy-)?authorization$|^cookie$|token$|^(x-)?(api|access|auth|client|secret)[-_]?(key|id|secret)$"
    r"|secret|password",
    re.IGNORECASE,
)


def place(name: str) -> str:
    """Where the value of that name goes."""
    return f"{BEGIN}{value_name(name)}{END}"


def value_name(name: str) -> str:
    """A name as values may have it: letters, digits, `_`, `.` and `-`."""
    found = _NAME.sub("_", name.strip())
    return found if found[:1].isalpha() or found[:1] == "_" else f"_{found}"


def clean(text: object) -> str:
    """Text of a file, without what stands for places here."""
    return str(text).replace(BEGIN, "").replace(END, "")


def placed(text: object, pattern: re.Pattern[str], name: Callable[[str], str] = place) -> str:
    """Text in which what the pattern finds, with a name as its first group, is a place."""
    return pattern.sub(lambda found: name(found[1]), clean(text))


def names_in(text: str) -> set[str]:
    """The places that a text has."""
    return set(PLACE.findall(text))


def shown(text: str, around: str = "{}") -> str:
    """Text for people: places by their names, with something around them."""
    return PLACE.sub(lambda found: around.format(found[1]), text)


def slug(text: str, most: int = 40) -> str:
    """A name of a document: lower-case letters, digits, hyphens; '' if nothing is left."""
    words = _HUMP.sub("-", text).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:most].strip("-")


def is_secret(header: str) -> bool:
    """Whether what a header or a field of that name says should not stand in a document."""
    return bool(_SECRET.search(header))


def variable(text: str) -> str:
    """The name of a variable of the environment made from words."""
    words = _HUMP.sub("_", text).upper()
    found = re.sub(r"[^A-Z0-9]+", "_", words).strip("_") or "SECRET"
    return found if not found[0].isdigit() else f"_{found}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is not copied: the variable of the environment where it will lie."""

    env: str


@dataclass(slots=True)
class Take:
    """A value out of an answer; exactly one of the last three."""

    name: str
    default: str | None = None
    json_path: str = ""
    header: str = ""
    pattern: str = ""


@dataclass(slots=True)
class Call:
    """One request."""

    url: str
    method: str = "GET"
    name: str = ""
    headers: dict[str, str | Secret] = field(default_factory=dict[str, "str | Secret"])
    body: str = ""
    think: float = 0.0  # seconds before it
    takes: list[Take] = field(default_factory=list[Take])
    code: str = ""
    pattern: str = ""

    def texts(self) -> Iterator[str]:
        """All that may have places."""
        yield from (self.url, self.body)
        yield from (text for text in self.headers.values() if isinstance(text, str))


@dataclass(slots=True)
class Flow:
    """What one user does in one turn."""

    name: str
    calls: list[Call]
    weight: int = 1
    go_on: bool = False  # after a failed call


class Notes:
    """What was not understood, or not taken over as it was: each thing once, with how often."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def add(self, where: str, what: str) -> None:
        text = " ".join(clean(f"{where}: {what}" if where else what).split())
        self._found["".join(c if c.isprintable() else "?" for c in text)[:300]] += 1

    def lines(self) -> list[str]:
        found = [f"{text} ({n} times)" if n > 1 else text for text, n in self._found.items()]
        more = len(found) - _MOST_NOTES
        return found if more <= 0 else [*found[:_MOST_NOTES], f"and {more} more of these"]


@dataclass(slots=True)
class Plan:
    """All that was found in a file."""

    name: str
    source: str
    """What kind of file it was, for people: with its article."""
    flows: list[Flow] = field(default_factory=list[Flow])
    constants: dict[str, str] = field(default_factory=dict[str, str])
    """Values that are the same in every turn; they may have places."""
    rows: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Rows of values; each turn takes one."""
    once: bool = False
    """Whether each row is used once, and the load ends then."""
    headers: dict[str, str | Secret] = field(default_factory=dict[str, "str | Secret"])
    """Of all calls."""
    bearer: Secret | None = None
    basic: tuple[str, Secret] | None = None
    users: int = 1
    ramp: float = 0.0
    """Seconds until all users are there."""
    duration: float = 0.0
    """Seconds; 0: not said."""
    cookies: bool = True
    redirects: int = 0
    verify: bool = True
    notes: Notes = field(default_factory=Notes)

    def constant(self, text: str) -> str:
        """Text with the values of constants in their places."""
        for _ in range(_DEPTH):
            if not names_in(text) & self.constants.keys():
                return text
            text = PLACE.sub(lambda found: self.constants.get(found[1], found[0]), text)
            if len(text) > _LONGEST:
                break
        for name in names_in(text) & self.constants.keys():
            self.notes.add("", f"the value of {name} refers to itself")
            del self.constants[name]
        return text[:_LONGEST]


def hide_secrets(plan: Plan) -> None:
    """Replace what headers say of secrets by where these will lie.

    What an earlier answer has given is no secret of the file, and stays.
    """
    taken = {take.name for flow in plan.flows for call in flow.calls for take in call.takes}
    every = [plan.headers, *(call.headers for flow in plan.flows for call in flow.calls)]
    for headers in every:
        for name, value in headers.items():
            if not is_secret(name) or isinstance(value, Secret):
                continue
            names = names_in(value)
            if names and names <= taken:
                continue
            only = names.pop() if len(names) == 1 else name
            headers[name] = found = Secret(variable(only))
            plan.notes.add(f"header {name}", f"not copied: put the whole header into ${found.env}")
