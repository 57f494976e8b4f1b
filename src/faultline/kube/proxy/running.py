"""A proxy as long as somebody wants it: its address, its kubeconfig, its faults from files."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from faultline.errors import FaultlineError, Unsupported, UsageError
from faultline.kube.proxy.active import Faults
from faultline.kube.proxy.server import Proxy
from faultline.kube.proxy.wishes import Wish, of_file
from faultline.kubeapi.kubeconfig import asynchronous

LOOK = 0.5  # seconds between two looks at the files
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How a proxy is started."""

    kubeconfig: str = ""
    context: str = ""
    listen: str = "127.0.0.1:0"
    write: Path | None = (
        None  # where the kubeconfig of the client goes; without it a folder of ours
    )
    files: tuple[Path, ...] = ()
    wishes: tuple[Wish, ...] = ()
    seconds: float | None = None  # after which all ends
    command: tuple[str, ...] = ()
    certificate: tuple[Path, Path] | None = None  # it and its key; made here if one is needed
    name: str = ""  # by which clients reach it, where that is not what it listens on


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of it."""

    code: int  # of the command; 0 without one
    requests: int
    faults: list[dict[str, Any]]


async def run(options: Options, ready: Callable[[str, Path], None]) -> Ended:
    """Serve until told to end, the time is over, or the command has ended; then nothing is left.

    `ready` is told the address and the kubeconfig. Raises UsageError, ApiError, Unsupported.
    """
    faults = Faults()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faultline-proxy-")))
        upstream = asynchronous(options.kubeconfig, options.context)
        stack.push_async_callback(upstream.client.aclose)
        proxy = Proxy(upstream, faults, secrets.token_urlsafe(24))
        wanted = _Wanted(options, faults)
        wanted.look()
        url, authority = await _listen(stack, proxy, options, folder)
        file = options.write or folder / "kubeconfig"
        _write_kubeconfig(file, url, authority, upstream.namespace)
        stack.callback(file.unlink, missing_ok=True)
        for work in (proxy.keep, wanted.keep):
            await stack.enter_async_context(_Background(work))
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        ready(url, file)
        code = await _until_the_end(options, ending, file)
        faults.want(())
        return Ended(code, proxy.requests, faults.to_json())


class _Background:
    """Something that is done beside, and ended with the block."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class _Wanted:
    """The faults that are asked for: those of the command, and those that the files name now."""

    def __init__(self, options: Options, faults: Faults) -> None:
        self._options, self._faults = options, faults
        self._seen: object = None

    def look(self) -> None:
        """Read the files; raises what is wrong with them."""
        found = [*self._options.wishes]
        for file in self._options.files:
            found += of_file(file)
        names = [each.name for each in found]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise UsageError(f"there are two faults of the name {twice[0]}")
        self._faults.want(found)
        self._seen = self._stamps()

    def _stamps(self) -> object:
        found: list[object] = []
        for file in self._options.files:
            with suppress(OSError):
                info = file.stat()
                found.append((str(file), info.st_mtime_ns, info.st_size, info.st_ino))
        return found

    async def keep(self) -> None:
        """Faults come and go with what stands in the files."""
        while True:
            await asyncio.sleep(LOOK)
            stamps = self._stamps()
            if stamps == self._seen:
                continue
            try:
                self.look()
            except FaultlineError as error:
                self._seen = stamps
                _log.warning("what was there before goes on: %s", error)


async def _until_the_end(options: Options, ending: asyncio.Event, file: Path) -> int:
    if not options.command:
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), options.seconds)
        return 0
    environment = {**os.environ, "KUBECONFIG": str(file)}
    try:
        child = await asyncio.create_subprocess_exec(*options.command, env=environment)
    except OSError as error:
        raise UsageError(f"{options.command[0]}: {error.strerror or error}") from error
    over = asyncio.ensure_future(child.wait())
    told = asyncio.ensure_future(ending.wait())
    await asyncio.wait((over, told), timeout=options.seconds,
                       return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
    told.cancel()
    if not over.done():
        child.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(over), 10.0)
        if not over.done():
            child.kill()
    return await over


# ---------------------------------------------------------------------- where it listens


async def _listen(
    stack: AsyncExitStack, proxy: Proxy, options: Options, folder: Path
) -> tuple[str, Path | None]:
    """Its address, and what a client has to trust."""
    from aiohttp import web

    host, _, port = options.listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise UsageError(f"expected HOST:PORT, not {options.listen!r}", hint="--listen 127.0.0.1:0")
    pair = options.certificate
    if pair is None and (options.name or not _is_loopback(host)):
        pair = await asyncio.to_thread(_made_certificate, folder, options.name or host)
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*pair)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(f"{pair[0]} and {pair[1]} are no certificate: {error}") from error
    runner = web.AppRunner(proxy.app(), access_log=None, handler_cancellation=True,
                           shutdown_timeout=1.0)  # fmt: skip
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, int(port), ssl_context=context)
    try:
        await site.start()
    except OSError as error:
        raise UsageError(f"nobody can listen at {options.listen}: {error.strerror}") from error
    bound = runner.addresses[0][1]
    shown = options.name or host
    shown = f"[{shown}]" if ":" in shown else shown
    scheme = "http" if pair is None else "https"
    return f"{scheme}://{shown}:{bound}/{proxy.secret}", None if pair is None else pair[0]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _made_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """One that signs itself, for a day; raises Unsupported without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Unsupported(
            "a certificate is needed beyond loopback, and openssl is not here to make one",
            hint="--certificate FILE --key FILE",
        )
    try:
        alternative = f"IP:{ip_address(name)}"
    except ValueError:
        alternative = f"DNS:{name}"
    file, key = folder / "certificate.pem", folder / "key.pem"
    words = [
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        "-subj", "/CN=faultline", "-addext", f"subjectAltName={alternative}",
        "-keyout", str(key), "-out", str(file),
    ]  # fmt: skip
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Unsupported(f"openssl makes no certificate: {made.stderr.strip()[-200:]}")
    return file, key


def _write_kubeconfig(file: Path, url: str, authority: Path | None, namespace: str) -> None:
    """What the client is to use, readable by its owner alone: the address is the credential."""
    import base64

    import yaml

    cluster: dict[str, Any] = {"server": url}
    if authority is not None:
        data = base64.b64encode(authority.read_bytes()).decode()
        cluster["certificate-authority-data"] = data
    name = "faultline-proxy"
    told: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name,
                      "context": {"cluster": name, "user": name, "namespace": namespace}}],
    }  # fmt: skip
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise UsageError(f"{file} is there already", hint="--write names a new file") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    with os.fdopen(fd, "w") as made:
        yaml.safe_dump(told, made, sort_keys=False)
