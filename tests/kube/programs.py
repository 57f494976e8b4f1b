"""Where the programs of Kubernetes are: the folder that envtest-style tests look in, else PATH."""

from __future__ import annotations

import os
import shutil

USUAL = "/usr/local/kubebuilder/bin"


def program(name: str) -> str:
    """The path of a program; empty if it is not here."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", USUAL)
    return shutil.which(name, path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}") or ""
