"""What a change makes of a file's content; pure functions, so undo need not remember the result.

Three ways, by the key that the change's settings have: `replace` text or a pattern anywhere,
`hosts` for a table of host names (hosts(5)), `servers` for a resolver's name servers
(resolv.conf(5)). The last two are lists of lines: there undo can tell ours from those of others
even where both changed neighbouring lines.
"""

from __future__ import annotations

import re
from typing import Any, Final

from faultline.changes import merge as merging
from faultline.changes.merge import How, Merge

Spec = dict[str, Any]
_SIGN: Final = b"# faultline"


def edited(spec: Spec, original: bytes) -> bytes:
    """What the file holds while the change stands."""
    if "hosts" in spec:
        return _hosts(original, spec["hosts"])
    if "servers" in spec:
        return _servers(original, spec["servers"])
    edit = spec["replace"]
    return merging.replaced(
        original,
        edit["find"],
        edit["put"],
        regex=edit["regex"],
        line=edit["line"],
        count=edit["count"],
    )


def taken_back(spec: Spec, original: bytes, current: bytes) -> Merge | None:
    """What the file shall hold afterwards, others' edits kept; None if a person has to say."""
    broken = edited(spec, original)
    found = merging.merge(original, broken, current)
    if found is None and "replace" not in spec:
        return Merge(_lines_back(original, broken, current), How.MERGED)
    return found


def words(spec: Spec) -> str:
    """What is done to the file, in a few words; 'it' is the file."""
    if "hosts" in spec:
        names = ", ".join(spec["hosts"]["names"])
        addresses = ", ".join(spec["hosts"]["addresses"])
        return f"map {names} to {addresses} in it" if addresses else f"take {names} out of it"
    if "servers" in spec:
        edit = spec["servers"]
        verb = {"replace": "name only", "add": "name first", "remove": "take out"}[edit["mode"]]
        return f"{verb} the server {', '.join(edit['addresses'])} in it"
    edit = spec["replace"]
    what = "matches of" if edit["regex"] else "the text"
    where = f" in line {edit['line']}" if edit["line"] else ""
    return f"replace {what} {edit['find']!r} by {edit['put']!r}{where} of it"


def addresses_of(content: bytes, name: str) -> list[str]:
    """The addresses that a table of host names has for a name, in its order."""
    found: list[str] = []
    for line in content.splitlines():
        words = line.split(b"#")[0].lower().split()
        if name.lower().encode() in words[1:]:
            found.append(words[0].decode(errors="replace"))
    return found


def servers_of(content: bytes) -> list[str]:
    """The name servers of a resolver, in its order."""
    found = [_server(line) for line in content.splitlines()]
    return [each for each in found if each]


def _hosts(original: bytes, edit: Spec) -> bytes:
    """Without these names, and with them at these addresses in the first lines, which count."""
    names = {name.lower().encode() for name in edit["names"]}
    kept = [_without(line, names) for line in original.splitlines(keepends=True)]
    ours = " ".join(edit["names"]).encode()
    added = [b"%s\t%s %s\n" % (each.encode(), ours, _SIGN) for each in edit["addresses"]]
    return b"".join([*added, *kept])


def _without(line: bytes, names: set[bytes]) -> bytes:
    """A line of a table of host names without these names; nothing if no other is left in it."""
    entry, sign, comment = line.partition(b"#")
    words = entry.split()
    if not names & {word.lower() for word in words[1:]}:
        return line
    if all(word.lower() in names for word in words[1:]):
        return b""
    # Only the names go, so that the rest of the line stays as somebody has aligned it.
    pieces = re.split(rb"(\s+)", entry.lstrip())
    left = pieces[0]
    for gap, word in zip(pieces[1::2], pieces[2::2], strict=False):
        left += b"" if word and word.lower() in names else gap + word
    left += b"" if sign or left.endswith(b"\n") or not line.endswith(b"\n") else b"\n"
    return left + sign + comment


def _server(line: bytes) -> str:
    words = line.split()
    right = len(words) > 1 and words[0] == b"nameserver"
    return words[1].decode(errors="replace") if right else ""


def _servers(original: bytes, edit: Spec) -> bytes:
    """The lines of name servers, replaced, preceded or thinned out, where the first of them was."""
    lines = original.splitlines(keepends=True)
    mode, addresses = edit["mode"], edit["addresses"]
    first = next((n for n, line in enumerate(lines) if _server(line)), len(lines))
    ours = [] if mode == "remove" else [f"nameserver {each}\n".encode() for each in addresses]
    head = lines[:first]
    if head and ours and not head[-1].endswith(b"\n"):
        head[-1] += b"\n"
    gone = {"replace": set(servers_of(original)), "add": set[str](), "remove": set(addresses)}[mode]
    rest = [line for line in lines[first:] if _server(line) not in gone]
    return b"".join([*head, *ours, *rest])


def _lines_back(original: bytes, broken: bytes, current: bytes) -> bytes:
    """The lines that we added taken out of what is there now, those that we took put back there.

    Where we had added some and none of them is left, somebody has written the file anew: it stays.
    """
    was, made, now = (text.splitlines(keepends=True) for text in (original, broken, current))
    added = [line for line in made if line not in was]
    taken = [line for line in was if line not in made and line not in now]
    if added and not any(line in now for line in added):
        return current
    at = next((n for n, line in enumerate(now) if line in added), len(now))
    rest = [line for line in now[at:] if line not in added]
    return b"".join([*now[:at], *taken, *rest])
