"""A command starts fast because it imports little: what `query` and completion may load."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.cli.command import Cli
from tests.stores import histories

from faultline.stores.opening import open_store

HEAVY = {"pydantic", "pydantic_core", "yaml", "rich", "aiohttp", "jinja2", "celpy", "hdrh"}
# What `faultline query` needs of ours when no fault is open. Additions are paid for at every call.
QUERY = {
    "faultline", "faultline.errors", "faultline.cli", "faultline.cli.main", "faultline.cli.naming",
    "faultline.cli.output", "faultline.cli.records", "faultline.cli.session", "faultline.changes",
    "faultline.changes.halt", "faultline.changes.journal", "faultline.changes.model",
    "faultline.changes.store",
    "faultline.kernel", "faultline.kernel.machine", "faultline.kernel.userns",
}  # fmt: skip
LATER = {"asyncio", "ctypes", "decimal", "hashlib", "shutil", "socket", "subprocess"}


def loaded(typed: Cli, *words: object, **extra: str) -> set[str]:
    """The modules that a command imports, as `python -X importtime` lists them."""
    argv = typed.argv(*words)
    done = subprocess.run(
        [argv[0], "-X", "importtime", *argv[1:]],
        env={**typed.env, **extra}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def heavy(found: set[str]) -> set[str]:
    return {name for name in found if name.partition(".")[0] in HEAVY}


def test_query_imports_no_more_than_it_needs(typed: Cli) -> None:
    found = loaded(typed, "query")
    assert {name for name in found if name.partition(".")[0] == "faultline"} <= QUERY
    assert not heavy(found)
    assert not found & LATER


def test_a_report_loads_nothing_of_what_carries_runs_out(typed: Cli) -> None:
    with open_store(None, typed.state) as store:
        store.create(histories.run("one", 0, 3))
    found = loaded(typed, "report", "one")
    assert "faultline.report.render" in found
    ours = {"faultline.engine.driver", "faultline.engine.runs", "faultline.injection.injector"}
    assert not found & {*ours, "http.client", "ssl", "faultline.traffic.run"}


def test_looking_and_recovering_load_no_models(typed: Cli, tmp_path: Path) -> None:
    typed.ok("inject", "file", "add", "--path", tmp_path / "made", "--uid", "held")
    for words in (["query"], ["query", "held"], ["watch", "--count", "1"], ["halt", "--lift"],
                  ["recover", "held"], ["recover", "--all"], ["boot"]):  # fmt: skip
        assert not heavy(loaded(typed, *words)), words


@pytest.mark.parametrize("words", [["rec"], ["recover", "x"], ["query", "--s"], ["watch", "--"]])
def test_completing_what_needs_no_models_loads_none(typed: Cli, words: list[str]) -> None:
    ask = {
        "_FAULTLINE_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["faultline", *words]),
        "COMP_CWORD": str(len(words)),
    }
    assert not heavy(loaded(typed, **ask))


def test_the_top_help_loads_no_command(typed: Cli) -> None:
    found = loaded(typed, "--help")
    assert not heavy(found)
    assert not {"faultline.cli.inject", "faultline.cli.records"} & found
