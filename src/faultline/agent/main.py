"""Entry of the agent process, on the bare interpreter: its last argument is the options as JSON."""

from __future__ import annotations

import sys

from faultline.agent.agent import Agent
from faultline.agent.options import decoded
from faultline.errors import FaultlineError
from faultline.kernel import machine, syscalls


def main() -> None:
    """Run until SIGTERM."""
    syscalls.set_name("fl-agent")
    try:
        machine.as_the_machine()
    except OSError as error:
        sys.stderr.write(f"not all of the machine can be seen from this container: {error}\n")
    try:
        Agent(decoded(sys.argv[-1])).run()
    except FaultlineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
