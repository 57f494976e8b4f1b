"""How answers look: for people, for programs, on a terminal and in a pipe; and completion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.cli.command import Cli

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PIPE = 'set -o pipefail; "$@" | head -n 1'
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def held(typed: Cli, tmp_path: Path) -> Cli:
    """A command line with one fault that is active."""
    typed.ok("inject", "file", "add", "--path", tmp_path / f"made-{'x' * 90}", "--uid", "held")
    return typed


@pytest.mark.parametrize(
    "words",
    [
        ["query"],
        ["query", "held"],
        ["recover", "held"],
        ["recover", "--all"],
        ["recover", "--scan"],
        ["halt", "for a reason"],
        ["halt", "--lift"],
        ["faults"],
        ["faults", "file"],
        ["explain", "file"],
        ["explain", "file", "add"],
        ["explain", "file.add"],
        ["plan", "file", "add", "--path", "/tmp/faultline-planned"],
        ["inject", "file", "add", "--path", "{folder}/second", "--uid", "second"],
        ["doctor", "file.add"],
        ["runs"],
        ["boot"],
    ],
)
def test_every_answer_is_also_json_and_the_same_in_yaml(
    held: Cli, words: list[str], tmp_path: Path
) -> None:
    words = [word.replace("{folder}", str(tmp_path)) for word in words]
    answer = held(*words, "--format", "json")
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    if words[0] in ("faults", "explain", "query"):
        again = yaml.safe_load(held(*words, "--format", "yaml").out)
        if words[0] == "query":  # the time that is left goes on
            return
        assert again == found
    else:
        answer = held(*words, "--format", "yaml")
        assert answer.code == (3 if words[0] == "inject" else 0), answer  # the uid is taken
        if answer.code == 0:
            assert type(yaml.safe_load(answer.out)) is type(found)


def test_a_pipe_gets_no_escape_and_nothing_cut(held: Cli, tmp_path: Path) -> None:
    for words in (["query"], ["query", "held"], ["explain", "file", "add"], ["faults"]):
        text = held.ok(*words)
        assert "\x1b" not in text
        assert "…" not in text
    assert "x" * 90 in held.ok("query", "held")


def test_a_terminal_gets_colour_and_lines_that_fit(held: Cli) -> None:
    text = held.on_terminal("query", columns=70)
    assert COLOUR.search(text)
    assert "…" in text
    assert max(len(ESCAPE.sub("", line)) for line in text.splitlines()) <= 70
    assert "\nheld  " in text
    wide = held.on_terminal("query", columns=400)
    assert "…" not in wide


def test_no_color_is_honoured_on_a_terminal(held: Cli) -> None:
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        held.extra = {name: value}
        assert not COLOUR.search(held.on_terminal("query"))
        assert not COLOUR.search(held.on_terminal("query", "nobody"))


def test_waiting_is_shown_on_a_terminal_and_wiped_away(typed: Cli, tmp_path: Path) -> None:
    text = typed.on_terminal("inject", "cpu", "burn", "-p", "5%", "--cores", "0", "--uid", "busy")
    assert "measuring the effect (" in text
    shown = text.split("\r\x1b[K")[-1]
    assert shown.lstrip().startswith("effect: ")


def test_watch_draws_over_itself_on_a_terminal(held: Cli) -> None:
    text = held.on_terminal("watch", "--count", "2", "-n", "100ms")
    assert text.count("\x1b[2J") == 1
    assert text.count("\x1b[H") == 2
    assert text.count("held") == 2


@pytest.mark.parametrize("words", [[], ["inject"], ["inject", "network"], ["plan", "file", "add"]])
def test_help_is_there_at_every_level(typed: Cli, words: list[str]) -> None:
    assert typed.ok(*words, "--help").startswith("Usage: faultline")
    assert typed.ok(*words, "-h") == typed.ok(*words, "--help")


def test_help_names_every_exit_code(typed: Cli) -> None:
    text = " ".join(typed.ok("--help").split())
    for code in (*range(9), 130):
        assert f" {code} " in text


def complete(typed: Cli, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words, by the script that we print."""
    program = folder / "bin" / "faultline"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m faultline.cli.main "$@"\n')
    program.chmod(0o755)
    listed = " ".join(f'"{word}"' for word in words)
    script = (
        f'eval "$({program} completion bash)"\n'
        f"COMP_WORDS=({listed})\nCOMP_CWORD={len(words) - 1}\n"
        f"compopt() {{ :; }}\n_faultline_completion {program}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=typed.env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_faults_flags_choices_and_uids(held: Cli, tmp_path: Path) -> None:
    def offered(*words: str) -> list[str]:
        return complete(held, tmp_path, "faultline", *words)

    assert offered("reco") == ["recover"]
    assert set(offered("re")) >= {"recover", "report"}
    assert offered("inject", "netw") == ["network"]
    assert offered("inject", "network", "de") == ["delay"]
    assert "--latency" in offered("inject", "network", "delay", "--la")
    assert offered("inject", "network", "delay", "--direction", "b") == ["both"]
    assert offered("recover", "he") == ["held"]
    assert offered("query", "--state", "act") == ["active"]
    assert offered("explain", "network", "lo") == ["loss"]
    assert offered("doctor", "file.app") == ["file.append"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_its_shell_can_read(typed: Cli, shell: str) -> None:
    script = typed.ok("completion", shell)
    assert "_FAULTLINE_COMPLETE" in script
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_the_reader_of_a_pipe_may_go_away(held: Cli) -> None:
    done = subprocess.run(
        ["bash", "-c", PIPE, "-", *held.argv("explain", "file", "add")],
        env=held.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
