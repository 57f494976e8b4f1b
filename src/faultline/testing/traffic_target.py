"""A stand-in for what a driver of traffic sends to, in a process of its own that can be stopped:
`python -m faultline.testing.traffic_target MODULE:CLASS`.

It prints the parameters that lead to it and runs until its input is closed.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def main() -> int:
    """Run the stand-in of the class."""
    module, _, name = sys.argv[1].partition(":")
    plugin: Any = vars(import_module(module))[name]
    with plugin.target() as params:
        print(json.dumps(dict(params)), flush=True)  # noqa: T201 (that is what it is for)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
