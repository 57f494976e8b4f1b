"""Read a real journal: a journald of our own, which sees and writes nothing of this machine.

Run as a program, in a mount namespace of its own: it starts systemd-journald over empty folders,
logs lines under two names, and prints as JSON what a run would keep of them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from faultline.api.watching import LogSpec
from faultline.watching import logs
from faultline.watching.logs import Window

JOURNALD = Path("/lib/systemd/systemd-journald")
SOCKET = Path("/run/systemd/journal/socket")


def log(name: str, text: str) -> None:
    """One entry, as sd_journal_send(3) sends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        entry = f"MESSAGE={text}\nSYSLOG_IDENTIFIER={name}\nPRIORITY=6\n"
        out.sendto(entry.encode(), str(SOCKET))


def kept(**journal: object) -> list[str]:
    """Log before, within and behind a window; the lines that are kept."""
    spec = LogSpec.model_validate({"name": "it", "journal": journal})
    log("shop", "before")
    time.sleep(2.5)  # lines a moment before count, since clocks and writers are late
    status = logs.begin(spec)
    start = time.time()
    log("shop", "within: password=hunter2")
    log("bank", "somebody else")
    time.sleep(0.5)
    status = logs.end(spec, status, Window(start, time.time()))
    return [line.text for line in status.lines] or [status.text]


def main() -> None:
    for folder in ("/run", "/var/log"):
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    Path("/run/systemd/journal").mkdir(parents=True)
    Path("/var/log/journal").mkdir()
    daemon = subprocess.Popen([JOURNALD], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not SOCKET.exists() and time.monotonic() < end:
            time.sleep(0.05)
        found = {
            "identifier": kept(identifier="shop"),
            "pid": kept(pid=os.getpid()),
            "nobody": kept(identifier="nobody"),
        }
    finally:
        daemon.terminate()
        daemon.wait()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
