"""Labels and images: from the files of their runtimes, and where those hold none, by asking.

Docker and CRI-O write both into files. Podman keeps them in a database and containerd in its own,
so these two are asked, once each, by the command that reaches the runtime that started them.
"""

from __future__ import annotations

import shutil
import subprocess

from faultline.places.container import Container

_PATIENCE = 10.0  # seconds


def find(known: list[Container], key: str, value: str) -> tuple[list[Container], list[str]]:
    """Those with this label, and which runtimes could not be asked."""
    found = {each.id: each for each in known if each.labels.get(key) == value}
    asked = {each.tool: each.runtime for each in known if each.tool and each.id not in found}
    complaints: list[str] = []
    for tool, runtime in asked.items():
        ids, complaint = _ask(tool, runtime, key, value)
        complaints += [complaint] if complaint else []
        found |= {each.id: each for each in known if each.tool == tool and each.id in ids}
    return list(found.values()), complaints


def images(known: list[Container]) -> tuple[dict[str, str], list[str]]:
    """The image of each, by its id, and which runtimes could not be asked."""
    found = {each.id: each.image for each in known if each.image}
    asked = {each.tool: each.runtime for each in known if each.tool and each.id not in found}
    complaints: list[str] = []
    for tool, runtime in asked.items():
        listing = ["containers", "list"]  # CONTAINER IMAGE RUNTIME
        if runtime == "podman":
            listing = ["ps", "--no-trunc", "--format", "{{.ID}} {{.Image}}"]
        told, complaint = _said(tool, runtime, listing)
        complaints += [complaint] if complaint else []
        rows = [line.split() for line in told.splitlines()]
        found |= {row[0]: row[1] for row in rows if len(row) > 1 and row[0] not in found}
    return found, complaints


def _ask(tool: tuple[str, ...], runtime: str, key: str, value: str) -> tuple[set[str], str]:
    """The ids that a runtime answers, or a complaint."""
    if runtime == "podman":
        words = ["ps", "--quiet", "--no-trunc", "--filter", f"label={key}={value}"]
    else:
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        words = ["containers", "list", "--quiet", f'labels."{key}"=={quoted}']
    told, complaint = _said(tool, runtime, words)
    return set(told.split()), complaint


def _said(tool: tuple[str, ...], runtime: str, words: list[str]) -> tuple[str, str]:
    """What a runtime's command says, or a complaint."""
    program = shutil.which(tool[0])
    if program is None:
        return "", f"{runtime} is asked by {tool[0]}, which is not installed"
    try:
        done = subprocess.run(
            [program, *tool[1:], *words], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{tool[0]} was asked for containers: {error}"
    if done.returncode:
        return "", f"{tool[0]} was asked for containers: {done.stderr.strip()[-300:]}"
    return done.stdout, ""
