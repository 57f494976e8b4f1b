"""Trying a fault where it can hurt nobody: in a child with all that it needs of its own.

`doctor` tells what works here by having tried it, and the conformance suite prepares its ground the
same way. The parameters of a fault's example may name `{folder}`, a scratch folder that holds
`app.log`, `app.conf`, `hosts` and `resolv.conf`, `{pid}`, a sleeping process, `{disk}`, a folder on
a disk of its own, `{device}`, that disk, and `{mapped}`, a folder on a device of the device mapper.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faultline.changes import keepers
from faultline.changes.model import End
from faultline.errors import FaultlineError, Unsupported
from faultline.injection import registry, samples, scratch
from faultline.injection.injector import Injector
from faultline.injection.model import Fault
from faultline.injection.plan import Order
from faultline.kernel import link, syscalls
from faultline.kernel.netlink import Netlink
from faultline.places.find import Target
from faultline.places.model import HOST, PROCESS
from faultline.units import Duration

PATIENCE = 60.0  # seconds for one trial
SAMPLE = "".join(f"line {n}: all is well\n" for n in range(1, 21))


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying one fault."""

    fault: str
    works: bool
    effect: str = ""
    measured: str = ""
    engine: str = ""  # the kinds of changes that it was made of
    why: str = ""  # why it does not work, and what to do


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a fault can be tried: its parameters, its target, the scratch folder as we see it."""

    params: dict[str, str]
    folder: Path
    target: Target
    known: dict[str, str]  # what the examples call {folder}, {pid}, ...


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A place with everything of its own, made for a trial."""

    pid: int  # its first process
    sleeper: int  # another one in it, asleep
    target: Target
    root: str = ""  # what the folder of the trial is called in it


Enclosure = Callable[[Path], contextlib.AbstractContextManager[Enclosed]]
"""Makes one in which a folder of ours can be seen. Raises Unsupported."""


@contextlib.contextmanager
def _capsule(root: Path) -> Generator[Enclosed]:
    with scratch.capsule(root) as inside:
        yield Enclosed(inside.pid, inside.sleeper, Target(pid=inside.pid))


ENCLOSURES: dict[str, Enclosure] = {PROCESS: _capsule}
"""How a place of each kind is made. Whoever has a runtime of containers adds its own."""


@contextlib.contextmanager
def ground(fault: Fault[Any] | type[Fault[Any]], kind: str = HOST) -> Generator[Ground]:
    """The example of a fault filled in, for a trial on this host or on a `kind` of place.

    A scratch folder, a sleeping process, a disk if it is named. With `process` the place is a
    process that has namespaces, a root directory and control groups of its own, as a container has;
    the folder lies in it, and so it does in whatever else ENCLOSURES can make. Raises Unsupported
    for a fault that would end whoever tries it.
    """
    if fault.lethal:
        raise Unsupported(f"{fault.id} is not tried: {fault.lethal}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder()))
        known = {"{folder}": str(folder)}
        if any("{disk}" in str(v) or "{device}" in str(v) for v in fault.example.values()):
            disk, device = stack.enter_context(scratch.disk(folder))
            known |= {"{disk}": str(disk), "{device}": device}
        if any("{mapped}" in str(v) for v in fault.example.values()):
            known["{mapped}"] = str(stack.enter_context(scratch.mapped(folder)))
        target, first = Target(), 0
        if kind == HOST:
            known["{pid}"] = str(stack.enter_context(_sleeper()))
            if fault.scratch == "memory":
                stack.enter_context(scratch.little_memory())
        else:
            root = str(folder.parent)
            if kind not in ENCLOSURES:
                raise Unsupported(f"no {kind} is made for a trial")
            inside = stack.enter_context(ENCLOSURES[kind](folder.parent))
            known = {name: path.replace(root, inside.root, 1) for name, path in known.items()}
            known["{pid}"], target, first = str(inside.sleeper), inside.target, inside.pid
        if fault.scratch == "plugin":
            allowed = stack.enter_context(samples.plugins())
            known |= {"{plugin}": samples.PROGRAM, "{script}": str(allowed / samples.PROGRAM)}
            known["{url}"] = stack.enter_context(samples.endpoint(first))
        if fault.scratch == "exporter":
            known["{url}"] = stack.enter_context(samples.exporter(first))
        yield Ground(filled(fault.example, known), folder, target, known)


@contextlib.contextmanager
def plain_ground() -> Generator[tuple[Path, dict[str, str]]]:
    """A scratch folder and a sleeping process, and what examples call them."""
    with _folder() as folder, _sleeper() as pid:
        yield folder, {"{folder}": str(folder), "{pid}": str(pid)}


@contextlib.contextmanager
def _folder() -> Generator[Path]:
    """A folder with two files, alone in a folder that can be the root of a place."""
    with tempfile.TemporaryDirectory(prefix="faultline-trial-", ignore_cleanup_errors=True) as root:
        Path(root).chmod(0o755)
        folder = Path(root) / "app"
        folder.mkdir()
        (folder / "app.log").write_text(SAMPLE)
        (folder / "app.conf").write_text("mode = calm\nlevel = 3\n")
        (folder / "hosts").write_text("127.0.0.1\tlocalhost\n198.51.100.7 db.example.test db\n")
        (folder / "resolv.conf").write_text("search example.test\nnameserver 198.51.100.53\n")
        yield folder


@contextlib.contextmanager
def _sleeper() -> Generator[int]:
    sleeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        yield sleeper.pid
    finally:
        sleeper.send_signal(signal.SIGCONT)
        sleeper.kill()
        sleeper.wait()


def filled(example: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """An example with what is known of the ground in place of {folder}, {pid} and the like."""
    return {name: _filled(value, known) for name, value in example.items()}


def _filled(value: str, known: dict[str, str]) -> str:
    for name, meant in known.items():
        value = value.replace(name, meant) if isinstance(value, str) else value
    return value


def isolate() -> None:
    """Give this process a network namespace of its own, with only a loopback device."""
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.Namespace.NET)
    else:
        user, group = os.geteuid(), os.getegid()
        syscalls.unshare(syscalls.Namespace.USER | syscalls.Namespace.NET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    with Netlink.open() as nl:
        link.set_up(nl, "lo")


def in_child(
    act: Callable[[], Any], patience: float = PATIENCE, why: list[str] | None = None
) -> Any:
    """Run `act` in an isolated child and return its JSON answer; None if it died or took too long.

    What it raised is added to `why`, in one line. Raises Unsupported where no namespace may be
    made.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, json.dumps(_isolated(act)).encode())
            status = 0
        finally:
            if status:
                traceback.print_exc()
                raised = sys.exc_info()[1]
                told = f"{type(raised).__name__}: {raised}"[:2000]
                os.write(write, json.dumps({"raised": told}).encode())
            os._exit(status)
    os.close(write)
    os.set_blocking(read, False)
    answer = _read_until(read, time.monotonic() + patience)
    os.close(read)
    if answer is None:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if not answer:
        return None
    told = json.loads(answer)
    if "raised" in told:
        if why is not None:
            why.append(told["raised"])
        return None
    if "refused" in told:
        raise Unsupported(
            f"no namespace can be made to try it in: {told['refused']}",
            hint="run it as root, or allow user namespaces (sysctl user.max_user_namespaces)",
        )
    return told["answer"]


def _isolated(act: Callable[[], Any]) -> dict[str, Any]:
    try:
        isolate()
    except OSError as error:
        return {"refused": error.strerror}
    return {"answer": act()}


def _read_until(fd: int, until: float) -> bytes | None:
    answer = b""
    while time.monotonic() < until:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if not chunk:
            return answer
        answer += chunk
    return None


def try_fault(fault_id: str) -> Trial:
    """Inject a fault's example, measure it, recover it, look for residue; all in a child."""
    fault = registry.get(fault_id)
    if fault.lethal:
        return Trial(fault_id, works=False, why=f"not tried: {fault.lethal}")
    if not fault.places & {HOST, PROCESS}:
        why = "not tried: it acts on a container, and none is started for a trial"
        return Trial(fault_id, works=False, why=why)
    try:
        answer = in_child(lambda: asdict(_prepared(fault_id)))
    except Unsupported as error:
        return Trial(fault_id, works=False, why=f"{error.message}. {error.hint}")
    if answer is None:
        return Trial(fault_id, works=False, why="the trial did not come to an end")
    return Trial(**answer)


def _prepared(fault_id: str) -> Trial:
    try:
        return _try(fault_id)
    except OSError as error:
        why = f"the ground for it cannot be prepared: {error.strerror} ({error.filename})"
        return Trial(fault_id, works=False, why=why)
    except FaultlineError as error:
        return Trial(fault_id, works=False, why=error.message)


def _try(fault_id: str) -> Trial:
    fault = registry.get(fault_id)
    # What does not act on the host is tried on a process with everything of its own.
    kind = PROCESS if HOST not in fault.places and PROCESS in fault.places else HOST
    with (
        tempfile.TemporaryDirectory(prefix="faultline-store.") as state,
        ground(fault, kind) as here,
        Injector(Path(state)) as injector,
    ):
        try:
            read = (
                fault.params_type()
                .read_text(here.params)
                .model_dump(mode="json", exclude_unset=True)
            )
            record = injector.inject(
                Order(fault_id, read, Duration.parse("1m"), target=here.target)
            )
            engine = "+".join(step.change.kind for step in record.steps)
            reading = injector.observe(record.uid)
            record = injector.recover(record.uid)
            left = injector.residue(record.uid)
        except FaultlineError as error:
            return Trial(fault_id, works=False, why=f"{error.message}. {error.hint}".rstrip(". "))
        finally:
            keepers.retire(injector.store)
        if record.end is End.PERSON or left:
            return Trial(
                fault_id, works=False, engine=engine, why="; ".join(left) or str(record.end)
            )
        return Trial(
            fault_id,
            works=reading.effect == "effective",
            effect=str(reading.effect),
            measured=reading.measured,
            engine=engine,
            why=reading.reason,
        )
