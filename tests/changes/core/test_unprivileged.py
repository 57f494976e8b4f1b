"""An ordinary user has a store of their own and never touches root's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lifeground import SOURCE, Ground, keepers_of, kill

from faultline.changes import keepers, store, wire
from faultline.changes.model import End
from faultline.errors import FaultlineError, UntrustedStore

NOBODY = 65534
pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of an ordinary user's; pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory(prefix="faultline-home-") as made:
        path = Path(made)
        os.chown(path, NOBODY, NOBODY)
        yield path
        for process in keepers_of(store.Store(path / ".local/state/faultline", path)).values():
            kill(process)


def _as_nobody(home: Path, act: Callable[[], Any]) -> Any:
    """What `act` answers when an ordinary user does it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told: Any = "it did not come to an end"
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            for name in ("FAULTLINE_STATE", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
                os.environ.pop(name, None)
            os.environ["HOME"] = str(home)
            told = act()
        except Exception as error:  # noqa: BLE001 - told to the parent
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, json.dumps(told).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.load(pipe)
    os.waitpid(pid, 0)
    return answer


OWN = """
import os, sys
from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.units import Duration
with Injector() as injector:
    order = Order("file.add", {"path": sys.argv[1], "content": "x"}, Duration.parse("1m"))
    made = injector.inject(order)
    print(injector.store.state, os.path.exists(sys.argv[1]))
    print(injector.recover(made.uid).end)
    keepers.dismiss(injector.store)
"""


def _interpreters() -> list[str]:
    """Ours, or one of the same version where ours lies in a folder that is root's alone."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    ours = str(getattr(sys, "_base_executable", sys.executable))
    return [each for each in (ours, shutil.which(version, path="/usr/local/bin:/usr/bin")) if each]


def test_an_ordinary_user_injects_and_recovers_in_a_store_of_their_own(home: Path) -> None:
    target = home / "added"
    packages = sysconfig.get_path("purelib")
    said: list[str] = []
    for python in _interpreters():
        try:
            ran = subprocess.run(
                [python, "-c", OWN, target], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                env={"HOME": str(home), "PYTHONPATH": f"{SOURCE}:{packages}"},
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        except PermissionError as error:
            said.append(str(error))
            continue
        assert ran.returncode == 0, ran.stderr
        state = home / ".local/state/faultline"
        assert ran.stdout == f"{state} True\n{End.RECOVERED}\n"
        assert not target.exists()
        return
    pytest.skip(f"no interpreter that an ordinary user may run: {said}")


def test_roots_store_can_be_neither_read_nor_written_nor_spoken_to(
    home: Path, ground: Ground
) -> None:
    with ground.injector() as injector:
        injector.inject(ground.order(uid="roots"))

    def act() -> list[str]:
        said: list[str] = []
        os.environ[store.ENVIRONMENT] = str(ground.state)
        for attempt in (
            store.open_store,
            ground.store.journal.read_bytes,
            lambda: (ground.store.run / "locks" / "roots").open("w"),
            lambda: keepers.connect(ground.store, "a"),
            ground.store.halt.touch,
        ):
            try:
                said.append(str(attempt()))
            except (OSError, FaultlineError) as error:
                said.append("refused" if "denied" in str(error) else str(error))
        return said

    assert _as_nobody(home, act) == [
        "refused", "refused", "refused", "None", "refused",
    ]  # fmt: skip
    with ground.injector() as injector:
        assert injector.recover("roots").end is End.RECOVERED


def test_root_refuses_the_store_of_an_ordinary_user(home: Path) -> None:
    _as_nobody(home, lambda: str(store.open_store().state))
    with pytest.raises(UntrustedStore, match="owned by user 65534"):
        store.open_store(home / ".local/state/faultline")


def test_a_keeper_checks_who_speaks_even_when_the_folder_would_let_them(tmp_path: Path) -> None:
    """A message of another user is refused by the credentials that the kernel tells."""
    with tempfile.TemporaryDirectory(prefix="faultline-open-") as made:
        Path(made).chmod(0o755)
        path = Path(made) / "socket"
        listener = wire.channel()
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(1)

        def act() -> str:
            connection = wire.channel()
            connection.connect(str(path))
            connection.close()
            return "spoken"

        assert _as_nobody(Path(made), act) == "spoken"
        connection, _ = listener.accept()
        with connection, listener, pytest.raises(UntrustedStore, match="of user 65534"):
            wire.check_peer(connection)
