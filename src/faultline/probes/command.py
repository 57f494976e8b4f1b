"""The command probe: an argument list, never a shell, with bounded time and bounded output."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
from pathlib import Path
from pwd import getpwnam
from typing import IO

from faultline.api.probe import CommandProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer

_KEPT = 64 * 1024  # bytes of output; the rest is read and forgotten
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Prober(prober.Prober[CommandProbe]):
    """Its value is the first number that the command prints, else its exit code."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        code, output = self._run(limit)
        number = _NUMBER.search(output)
        good, text = spec.code in ("any", code), self.quoted(output)
        if not good:
            how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            text = f"{how}, expected {spec.code}: {text}"
        elif spec.pattern and not re.search(spec.pattern, output):
            good, text = False, f"output without {spec.pattern!r}: {text}"
        return Measurement(
            value=float(number[0]) if number else float(code),
            ok=good,
            text=text,
            result={"code": code, "output": output},
        )

    def _start(self) -> subprocess.Popen[bytes]:
        spec = self.spec
        try:
            account = getpwnam(spec.user) if spec.user else None
        except KeyError as error:
            raise ObserveFailed(f"there is no user {spec.user!r}") from error
        home = account.pw_dir if account else str(Path.home())
        name = account.pw_name if account else ""
        groups = os.getgrouplist(name, account.pw_gid) if account else None
        given = {name: self.secret(value) for name, value in spec.env.items()}
        try:
            return subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": home, **given},
                cwd=spec.cwd,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=groups,
                start_new_session=True,  # so that all of it can be ended
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ObserveFailed(f"{spec.command[0]} could not be run: {error}") from error

    def _run(self, limit: Limit) -> tuple[int, str]:
        process = self._start()
        ended = os.pidfd_open(process.pid)
        kept = bytearray()
        assert process.stdout is not None
        try:
            with process.stdout, selectors.DefaultSelector() as selector:
                os.set_blocking(process.stdout.fileno(), False)
                selector.register(process.stdout, selectors.EVENT_READ)
                selector.register(ended, selectors.EVENT_READ)
                over = False
                while not over:
                    ready = {key.fd for key, _ in selector.select(limit.left())}
                    # What it left in the background may hold the pipe: its own end is what counts.
                    over = ended in ready
                    if process.stdout.fileno() in ready and not _drain(process.stdout, kept):
                        selector.unregister(process.stdout)
        except NoAnswer:
            raise limit.late("it did not end") from None
        finally:
            os.close(ended)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # not waited for: the id is its
            process.wait()
        return process.returncode, kept.decode(errors="replace")


def _drain(output: IO[bytes], kept: bytearray) -> bool:
    """Read what there is, keeping the first part; False at the end of the output."""
    for _ in range(64):  # then the limit is looked at again: a flood must not hold us
        try:
            data = os.read(output.fileno(), 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        kept += data[: _KEPT - len(kept)]
    return True
