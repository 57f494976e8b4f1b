"""Which store is meant, what is said when it cannot be opened, and what is never said."""

from __future__ import annotations

import builtins
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from tests.stores import histories
from tests.stores.server import Server

from faultline.engine.runs import Runs
from faultline.errors import FaultlineError, Unsupported, UsageError
from faultline.stores.model import StoreFailed
from faultline.stores.opening import ENVIRONMENT, open_store

SECRET = "hunter2-geheim"


def test_the_store_is_what_is_named_else_the_variable_else_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    with open_store(state=state) as store:
        assert repr(store) == f"<store {state / 'resources.db'}>"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "env.db"))
    with Runs(state) as runs:
        assert repr(runs.store) == f"<store {tmp_path / 'env.db'}>"
    with Runs(state, store=str(tmp_path / "named.db")) as runs:
        assert repr(runs.store) == f"<store {tmp_path / 'named.db'}>"
    with open_store(f"sqlite:///{tmp_path}/url.db") as store:
        assert repr(store) == f"<store {tmp_path / 'url.db'}>"


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/none?connect_timeout=2", StoreFailed),
        (f"postgresql://me:{SECRET}@127.0.0.1:port/none", UsageError),
        (f"postgresql://me:{SECRET}@[::1/none", UsageError),
        (f"mysql://me:{SECRET}@host/none", UsageError),
        ("/proc/none/resources.db", UsageError),
        ("kube://team/run?x=y", UsageError),
        ("kube://team?kubeconfig=/proc/none", StoreFailed),
    ],
)
def test_what_cannot_be_opened_is_told_without_the_password(
    where: str, kind: type[FaultlineError]
) -> None:
    pytest.importorskip("sqlalchemy")
    with pytest.raises(kind) as caught:
        open_store(where)
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert SECRET not in repr(caught.value.as_dict())


def test_a_store_on_a_server_hides_its_password_everywhere(postgres: Server) -> None:
    url = postgres.database().replace("faultline@", f"faultline:{SECRET}@")
    with open_store(url) as store:
        assert SECRET not in repr(store)
        assert "***" in repr(store)
        postgres.stop()
        try:
            with pytest.raises(StoreFailed) as caught:
                store.create(histories.run("one"))
        finally:
            postgres.start()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *given: Any) -> Any:
        if name.startswith(("sqlalchemy", "psycopg")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(Unsupported) as caught:
        open_store("postgresql://host/db")
    assert "pip install 'faultline[sql]'" in caught.value.hint


def test_a_list_on_one_host_loads_neither_models_nor_drivers(tmp_path: Path) -> None:
    code = (
        "import sys; from faultline.stores.opening import open_store as o\n"
        f"s = o({str(tmp_path / 'r.db')!r}); s.summaries('Run'); s.close()\n"
        "print([m for m in ('pydantic', 'sqlalchemy', 'alembic', 'psycopg') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"


def test_a_run_of_another_engine_is_not_taken_from_it(postgres: Server, tmp_path: Path) -> None:
    from faultline.errors import Conflict

    url = postgres.database()
    with Runs(tmp_path / "a", store=url) as one, Runs(tmp_path / "b", store=url) as other:
        one.store.create(histories.run("going", ended=False))
        one.driver("going")
        with pytest.raises(Conflict, match="another engine"):
            other.driver("going")
        assert [run.metadata.name for run in other.unfinished()] == ["going"]
    with Runs(tmp_path / "b", store=url) as other:
        other.driver("going")
