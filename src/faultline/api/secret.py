"""Secrets by reference: a document says where a secret lies, never what it is.

A secret is read when it is needed, by the process that needs it; it is in no document, no run, no
report and no message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.errors import ObserveFailed

LONGEST = 64 << 10
"""Bytes that are read of a file."""


_IN_ADDRESS = re.compile(r"(://[^\s/@:?#]*:)[^\s/?#]*(?=@)")


def hide_passwords(text: str) -> str:
    """A text that is shown to people: passwords inside addresses become stars."""
    return _IN_ADDRESS.sub(r"\1***", text)


class SecretRef(Model):
    """Where a secret lies; exactly one."""

    env: Annotated[str, Field(pattern=r"^$|^[A-Za-z_][A-Za-z0-9_]*$")] = ""
    """The name of a variable of the environment of whoever needs it."""
    file: str = ""
    """A file that holds it; a line break at its end does not count."""

    @model_validator(mode="after")
    def _one(self) -> SecretRef:
        if bool(self.env) == bool(self.file):
            raise ValueError("expected exactly one of env and file")
        return self

    def resolve(self) -> str:
        """The secret itself; raises ObserveFailed that says where it was looked for."""
        if self.env:
            found = os.environ.get(self.env)
            if found is None:
                raise ObserveFailed(f"the secret is not there: no variable {self.env}")
            return found
        try:
            with Path(self.file).open("rb") as file:
                return file.read(LONGEST).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ObserveFailed(f"the secret in {self.file} cannot be read: {error}") from error

    def __str__(self) -> str:
        return f"variable {self.env}" if self.env else f"file {self.file}"
