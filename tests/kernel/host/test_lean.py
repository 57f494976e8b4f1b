"""What the processes that guard faults load, and what they do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faultline
from faultline.changes import frozen

# With each class of theirs documented, `dataclasses` has no use for `inspect` before Python 3.13.
HEAVY = {"platform", "base64", "shutil", "random", "decimal"}


def _loaded(*lines: str) -> set[str]:
    source = str(Path(faultline.__file__).parents[1])
    words = [f"import sys; sys.path.insert(0, {source!r})", *lines, "print(*sys.modules)"]
    argv = [sys.executable, "-I", "-S", "-c", "\n".join(words)]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


def test_a_keeper_loads_all_undo_code_and_no_heavy_module_of_python() -> None:
    assert "faultline.kernel.lean" in frozen.BOOT
    loaded = _loaded(
        "import faultline.kernel.lean",
        "import faultline.changes.keeper, faultline.changes.catalogue",
    )
    inspecting = {"ast", "dis", "tokenize"} if sys.version_info < (3, 13) else set[str]()
    assert not loaded & (HEAVY | inspecting), "a dataclass without a docstring loads inspect"


def test_inspect_is_there_for_whoever_needs_it_all_the_same() -> None:
    loaded = _loaded(
        "import faultline.kernel.lean, inspect",
        "assert inspect.signature(lambda a: a).parameters['a'].name == 'a'",
        "from inspect import isfunction",
        "assert isfunction(isfunction)",
    )
    assert "ast" in loaded
