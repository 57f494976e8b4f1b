"""What a command asks of the call that it is part of: the state folder, files that it writes."""

from __future__ import annotations

from pathlib import Path

import click

from faultline.errors import UsageError


def state_folder() -> Path | None:
    """The folder that --state or FAULTLINE_STATE names; None for the usual one."""
    state = click.get_current_context().find_root().obj["state"]
    return Path(state) if state else None


def store_place() -> str | None:
    """Where --store or FAULTLINE_STORE says that runs are kept; None for the state folder."""
    return click.get_current_context().find_root().obj["store"]


def write(path: Path, text: str) -> None:
    """Write a file that the caller named; raises UsageError when it cannot be written."""
    try:
        path.write_text(text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", hint="name a file in a folder of yours"
        ) from error
