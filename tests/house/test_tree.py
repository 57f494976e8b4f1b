"""The rules of the house that can be read off the source tree.

They are the budgets that code bases with little repetition keep: functions of at most 60 lines,
files of at most 400, no import cycle, three broad excepts, no shell, five per cent of repetition.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "faultline"
FUNCTION_LINES = 60
FILE_LINES = 400
BROAD_EXCEPTS = 3
RUN = 6  # lines that make a repetition
REPEATED_SHARE = 0.05
BAD_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc", "shared"}
SHELLS = {
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("subprocess", "getstatusoutput"),
    ("asyncio", "create_subprocess_shell"),
}
SPAWNERS = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec"}


@cache
def sources() -> dict[str, tuple[str, ast.Module]]:
    """Every module of the product by its dotted name: its text and its tree."""
    found: dict[str, tuple[str, ast.Module]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text()
        found[name] = (text, ast.parse(text))
    return found


@cache
def tracked() -> tuple[Path, ...]:
    """The files that belong to the project."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return tuple(path for name in listed.stdout.split("\n") if (path := ROOT / name).is_file())


def walk(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, ast.AST]]:
    for name, (_, tree) in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{name}:{getattr(node, 'lineno', 0)}", node


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{where} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for where, node in walk((ast.FunctionDef, ast.AsyncFunctionDef))
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    files = [path for path in tracked() if path.suffix in {".py", ".sh"} or path.name == "run"]
    assert SOURCE / "errors.py" in files
    long = {
        str(path.relative_to(ROOT)): count
        for path in files
        if (count := len(path.read_text().splitlines())) > FILE_LINES
    }
    assert long == {}


def _broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler hides everything. One that cleans up and raises it again hides nothing."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        each is None or getattr(each, "id", "") in {"Exception", "BaseException"} for each in caught
    )


def test_at_most_three_places_catch_everything() -> None:
    """They are the loops that must go on: keeper, engine, and one more at most."""
    broad = [where for where, node in walk(ast.ExceptHandler) if _broad(node)]
    broad += [
        where
        for where, node in walk(ast.Call)
        if getattr(node.func, "attr", getattr(node.func, "id", "")) == "suppress"
        and any(getattr(each, "id", "") in {"Exception", "BaseException"} for each in node.args)
    ]
    assert len(broad) <= BROAD_EXCEPTS, broad


def test_no_exception_is_swallowed_in_silence() -> None:
    """A handler that does nothing must at least name a narrow class."""
    silent = [
        where
        for where, node in walk(ast.ExceptHandler)
        if _broad(node) and all(isinstance(each, ast.Pass) for each in node.body)
    ]
    assert silent == []


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is a command written as one string."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    joined = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"join", "format"}
    return joined or isinstance(node, ast.JoinedStr | ast.BinOp)


def test_nothing_goes_through_a_shell() -> None:
    guilty = []
    for where, node in walk(ast.Call):
        owner = getattr(getattr(node.func, "value", None), "id", "")
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if (owner, name) in SHELLS or any(
            each.arg == "shell" and getattr(each.value, "value", True) for each in node.keywords
        ):
            guilty.append(f"{where}: {owner}.{name}")
        spawns = owner in {"subprocess", "asyncio"} and name in SPAWNERS
        if spawns and owner == "subprocess" and node.args and _is_text(node.args[0]):
            guilty.append(f"{where}: a command that is one string")
    assert guilty == []


def _imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports when it is loaded; not what only the type checker sees."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            todo += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle of the graph, or nothing: what is left when everything without imports is gone."""
    left = {name: set(targets) for name, targets in graph.items()}
    while ends := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets - ends for name, targets in left.items() if name not in ends}
    path = sorted(left)[:1]
    while path and path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :] if path else []


def test_no_module_imports_itself_round_a_corner() -> None:
    modules = sources()
    graph = {
        name: {
            found
            for target in _imports(tree)
            for found in [target if target in modules else target.rpartition(".")[0]]
            if found in modules and found != name
        }
        for name, (_, tree) in modules.items()
    }
    assert any(graph.values())
    assert _cycle(graph) == []


def test_a_cycle_would_be_found() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def code_lines(text: str) -> list[tuple[int, str]]:
    """The lines of a module without blanks, comments and imports, with their numbers."""
    imports = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in lines if line and line[0] != "#" and n not in imports]


def repetition(texts: dict[str, str]) -> tuple[float, dict[str, list[str]]]:
    """The share of code lines inside a run that stands elsewhere too, and where those runs are."""
    where: dict[str, list[tuple[str, int]]] = defaultdict(list)
    lines = {name: code_lines(text) for name, text in texts.items()}
    for name, each in lines.items():
        for start in range(len(each) - RUN + 1):
            where["\n".join(line for _, line in each[start : start + RUN])].append((name, start))
    repeated = {key: places for key, places in where.items() if len(places) > 1}
    covered = {(n, s + i) for places in repeated.values() for n, s in places for i in range(RUN)}
    total = sum(map(len, lines.values()))
    told = {key: [f"{n}:{lines[n][s][0]}" for n, s in each] for key, each in repeated.items()}
    return len(covered) / max(total, 1), told


def test_at_most_five_per_cent_of_the_lines_are_repeated() -> None:
    share, places = repetition({name: text for name, (text, _) in sources().items()})
    listed = "\n".join(f"{' = '.join(found)}" for found in places.values())
    assert share <= REPEATED_SHARE, f"{share:.1%} of the code lines are repeated:\n{listed}"


def test_a_repetition_would_be_counted() -> None:
    block = "\n".join(f"a{i} = {i}" for i in range(6))
    share, _ = repetition({"x": f"import os\n{block}\nb = 1\nc = 2\n", "y": f"# said\n\n{block}\n"})
    assert share == pytest.approx(12 / 14)
    assert repetition({"x": block, "y": block.replace("a0", "b0")})[0] == 0


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [name for name in sources() if name.rpartition(".")[2] in BAD_NAMES]
    assert vague == []


def test_every_module_says_why_it_exists() -> None:
    silent = [name for name, (_, tree) in sources().items() if not ast.get_docstring(tree)]
    assert silent == []


def test_no_file_mentions_the_machine_that_it_was_written_on() -> None:
    """Paths of a workplace mean nothing to a reader elsewhere."""
    places = [
        "/wo" + "rk/main",
        "/wo" + "rk/shared",
        "/tmp/" + "fl/",
        "/var/cache/" + "uml",
        "shared/" + "reference",
    ]
    pattern = re.compile("|".join(map(re.escape, places)))
    guilty = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        guilty += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    assert guilty == []


CONTRACTION = re.compile(
    r"\b\w+n't\b|\b(it|that|there|what|here|let|who|he|she)'s\b|\b\w+'(re|ll|ve)\b|\bI'm\b",
    re.IGNORECASE,
)


def test_the_documentation_has_no_contractions() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}:{number}: {found[0]}"
        for path in tracked()
        if path.suffix == ".md"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := CONTRACTION.search(line))
    ]
    assert guilty == []
