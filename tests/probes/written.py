"""Plug-ins that tests write: a program with its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MANIFEST = """
kind = "{kind}"
name = "mine"
summary = "Mine"
{how}
[parameters.word]
type = "text"
pattern = "[a-z]*"
default = "calm"
help = "A word."
[parameters.wait]
type = "duration"
low = "0s"
high = "9s"
default = "0s"
help = "A time."
[limits]
user = "root"
memory = "64MiB"
time = "1500ms"
[[examples]]
word = "calm"
{more}
"""
BLIND = '[[unmeasurable]]\nword = "blind"'
ANSWERS = """#!/bin/sh
[ "$1" = measure ] || exit 2
case $FAULTLINE_PARAMETER_WORD in
blind) echo '{"ok": null, "text": "nothing to see"}' ;;
*) %s ;;
esac
"""


def write(
    folder: Path, does: str, kind: str = "probe", script: str = ANSWERS, **lines: str
) -> Path:
    """A program that does this where it can measure, with its manifest; the manifest's path."""
    path = folder / "mine.sh"
    path.write_text(script % does if "%s" in script else script)
    path.chmod(0o755)
    how = 'executable = "mine.sh"\n' + "\n".join(f'{k} = "{v}"' for k, v in lines.items())
    more = BLIND if kind == "probe" else ""
    (folder / "mine.toml").write_text(MANIFEST.format(kind=kind, how=how, more=more))
    return folder / "mine.toml"


def says(answer: dict[str, Any]) -> str:
    return f"echo '{json.dumps(answer)}'"
