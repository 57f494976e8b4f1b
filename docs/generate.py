"""Writes docs/reference and the table in README.md from models, registry, errors and commands.

Nobody writes a reference page by hand. The pages are committed, since they are what people read in
a review; a test makes them again in memory and compares. Run: python docs/generate.py
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import yaml
from pydantic.fields import FieldInfo

import faultline
from faultline.api.explaining import Explained
from faultline.api.kinds import KINDS
from faultline.api.model import API_VERSION
from faultline.api.quantities import Flag, Quantity
from faultline.cli import kube_faults, options, output
from faultline.cli.catalogue import aspects, describe, example_target
from faultline.cli.main import cli
from faultline.errors import FaultlineError, all_errors
from faultline.injection import registry
from faultline.injection.model import Ending
from faultline.kube import capabilities, chart

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Made by docs/generate.py; change the code, not this page. -->\n\n"
WITH_EXAMPLE = ("CONTRIBUTING.md", "docs/writing-a-fault.md")
# What the examples name, which are tried in a scratch folder and on a process of the test.
YES_NO = {"True": True, "False": False}
PLACES = {
    "{folder}": "/srv/scratch",
    "{pid}": "4321",
    "{disk}": "/srv/scratch",
    "{device}": "sdb",
    "{mapped}": "/srv/scratch",
    "{plugin}": "stale-lock",
    "{script}": "/etc/faultline/plugins/stale-lock",
    "{url}": "http://127.0.0.1:8080/faults/slow",
}
ERRORS = """\
Every error says whether anything happened to the target (nothing, maybe, certainly) and whether the
same call is worth another try. What was not foreseen is *maybe*: it is undone.
With `--format json` an error goes to standard error as
`{"error": {"code": ..., "message": ..., "hint": ..., "happened": ..., "retry": ...}}`."""
PLAIN: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "yes or no",
    Any: "anything",
    NoneType: "nothing",
}
DOCUMENTS = f"""\
Every document has `apiVersion: {API_VERSION}`, a `kind`, `metadata` and a `spec`.
Unknown fields are refused. Durations, sizes, rates and percentages carry their unit."""


def cell(text: object) -> str:
    """Text for one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    names = list(headings)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def prose(thing: object) -> str:
    """A docstring as paragraphs."""
    text = getattr(thing, "__doc__", None) or ""
    first, _, rest = text.strip().partition("\n")
    return f"{first}\n{dedent(rest)}".strip() if rest else first


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


# ------------------------------------------------------------------------------------------ faults


def flags(name: str, field: FieldInfo) -> str:
    """How a parameter is written on the command line."""
    flag = next((each for each in field.metadata if isinstance(each, Flag)), Flag())
    short = [f"-{flag.short}"] if flag.short else []
    names = [f"--{name.replace('_', '-')}", *short, *(f"--{alias}" for alias in flag.aliases)]
    return ", ".join(map(code, names))


def default(required: bool, value: object) -> str:
    """The default of a field as a reader writes it; empty where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "required" if required else code(value if value not in (None, "[]", "{}", "()") else "")


def value_of(kind: str, bounds: str) -> str:
    """What a field takes, with its bounds."""
    plain = kind.replace("list of str", "list of text").replace(" | ", " or ")
    return f"{plain}, {bounds}" if bounds else plain


def fault_section(fault_id: str) -> str:
    """All that is known about one fault."""
    about, fault = describe(fault_id), registry.get(fault_id)
    fields = fault.params_type().model_fields
    rows = [
        (
            flags(each["name"], fields[each["name"]]),
            value_of(each["kind"], each["bounds"]),
            default(each["required"], YES_NO.get(each["default"], each["default"])),
            each["help"],
        )
        for each in about["parameters"]
    ]
    parts = [
        f"## {fault_id}\n\n{prose(fault)}\n",
        table(("parameter", "value", "default", "meaning"), rows),
        table(("", ""), [(f"**{title}**", told) for title, told in aspects(about)]),
        examples(fault_id),
    ]
    return "\n".join(parts)


def filled(fault_id: str) -> dict[str, Any]:
    """The example of a fault with its places filled in and every value of the type of its field."""
    fault = registry.get(fault_id)
    shapes = fault.params_type().model_json_schema()["properties"]
    found: dict[str, Any] = {}
    for name, text in fault.example.items():
        given = functools.reduce(lambda t, place: t.replace(*place), PLACES.items(), text)
        kinds = {shapes[name].get("type"), *(e.get("type") for e in shapes[name].get("anyOf", []))}
        found[name] = yaml.safe_load(given) if kinds & {"integer", "number"} else given
    return found


def examples(fault_id: str) -> str:
    """The same fault as a command, as a document, and in Python."""
    family, _, name = fault_id.partition(".")
    params = filled(fault_id)
    words = " ".join(
        f"--{key.replace('_', '-')} {shlex.quote(str(v))}" for key, v in params.items()
    )
    spec: dict[str, Any] = {"fault": fault_id, "params": params, "duration": "1m"}
    target = example_target(registry.get(fault_id))
    if target:
        spec["target"] = target
        words = " ".join(["--container", target["container"], words])
    head = {"apiVersion": API_VERSION, "kind": "Fault", "metadata": {"name": f"{family}-{name}"}}
    document = {**head, "spec": spec}
    arguments = "".join(f", {key}={value!r}" for key, value in params.items())
    if target:
        arguments += f", fault_target={target!r}"
    arguments = arguments.replace("'", '"')
    return (
        f"```sh\nfaultline inject {family} {name} {words}".rstrip()
        + f"\n```\n\n```yaml\n{yaml.safe_dump(document, sort_keys=False)}```\n\n"
        + f'```python\nwith faultline.fault("{fault_id}"{arguments}):\n    ...\n```\n'
    )


def fault_rows(link: str) -> list[tuple[str, str, str]]:
    """One row per fault: its id with a link, its first line, what ends it."""
    return [
        (
            f"[{fault_id}]({link}{fault_id.partition('.')[0]}.md#{fault_id.replace('.', '')})",
            prose(fault).splitlines()[0],
            str(fault.ending),
        )
        for fault_id, fault in registry.everything().items()
    ]


def fault_pages() -> Iterator[tuple[str, str]]:
    endings = table(("ending", "meaning"), [(each, output.ENDINGS[each]) for each in Ending])
    listed = table(("fault", "what the target suffers", "ending"), fault_rows(""))
    killed = "What ends a fault at its deadline, if everything of ours is killed:"
    yield "faults/index.md", f"# Faults\n\n{listed}\n{killed}\n\n{endings}"
    for family, module in registry.families().items():
        sections = "\n".join(map(fault_section, registry.family(family)))
        yield f"faults/{family}.md", f"# {family}\n\n{prose(sys.modules[module])}\n\n{sections}"


def names() -> dict[str, str]:
    """The table of parameter names."""
    return tomllib.loads((ROOT / "docs" / "parameters.toml").read_text())


def parameter_page() -> str:
    used: dict[str, list[str]] = {name: [] for name in names()}
    for fault_id, fault in registry.everything().items():
        for name in fault.params_type().model_fields:
            used.setdefault(name, []).append(fault_id)
    rows = [(code(name), names().get(name, ""), ", ".join(used[name])) for name in sorted(used)]
    said = "One name for one idea, in every fault. A value has a unit; a bare number is refused."
    return f"# Parameters\n\n{said}\n\n{table(('name', 'meaning', 'faults'), rows)}"


# ------------------------------------------------------------------------------ errors, exit codes


def exit_codes() -> dict[int, str]:
    """The exit codes with their meaning, as the help of the command line states them."""
    told = " ".join((cli.help or "").split()).partition("Exit status: ")[2].rstrip(".")
    pairs = (each.strip().partition(" ") for each in told.split(","))
    return {int(number): meaning for number, _, meaning in pairs}


def every_error() -> list[type[FaultlineError]]:
    """All classes of the tree, also those of layers that nothing here needs, parents first."""
    for module in pkgutil.walk_packages(faultline.__path__, "faultline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def path(error: type[FaultlineError]) -> list[str]:
        return [c.code for c in reversed(error.__mro__) if issubclass(c, FaultlineError)]

    return sorted(all_errors(), key=path)


def error_page() -> str:
    rows = [
        (code(e.code), prose(e), e.happened, "yes" if e.retry else "no", e.exit_code, e.http_status)
        for e in every_error()
    ]
    raised: dict[int, list[str]] = {}
    for error in every_error():
        raised.setdefault(error.exit_code, []).append(code(error.code))
    codes = [(n, text, ", ".join(raised.get(n, []))) for n, text in exit_codes().items()]
    headings = ("code", "meaning", "happened", "retry", "exit code", "HTTP status")
    return (
        f"# Errors and exit codes\n\n{ERRORS}\n\n{table(headings, rows)}"
        f"\n## Exit codes\n\n{table(('code', 'meaning', 'errors'), codes)}"
    )


# ------------------------------------------------------------------------------------ command line


def command_page() -> str:
    context = click.Context(cli, info_name="faultline", terminal_width=88, max_content_width=88)
    parts = [f"# Command line\n\n```text\n{cli.get_help(context)}\n```\n"]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        parts.append(f"## {name}\n\n```text\n{command.get_help(inner)}\n```\n")
        # The faults below `inject` and `plan` have pages of their own.
        if isinstance(command, click.Group) and name not in ("inject", "plan"):
            for below in command.list_commands(inner):
                deeper = command.get_command(inner, below)
                if deeper is not None:
                    told = deeper.get_help(click.Context(deeper, info_name=below, parent=inner))
                    parts.append(f"### {name} {below}\n\n```text\n{told}\n```\n")
    return "\n".join(parts)


# --------------------------------------------------------------------------------------- documents


def models_in(kind: Any) -> Iterator[type[Explained]]:
    """The models that an annotation names, in order."""
    if isinstance(kind, type) and issubclass(kind, Explained):
        yield kind
    for argument in get_args(kind):
        yield from models_in(argument)


def type_name(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """A type as a reader of documents knows it."""
    for item in metadata:
        if isinstance(item, Quantity):
            return item.of.__name__.lower()
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_name(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(code(each) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(type_name(each) for each in inner if each is not NoneType)
    if origin in (list, tuple):
        return f"list of {type_name(inner[0])}"
    if origin is dict:
        return f"map of {type_name(inner[1])}"
    model = next(models_in(kind), None)
    if model is not None:
        return f"[{model.__name__}](#{model.__name__.lower()})"
    return PLAIN.get(kind) or str(getattr(kind, "__name__", ""))


def model_section(model: type[Explained], level: str = "##") -> str:
    rows: list[tuple[str, ...]] = []
    for name, field in model.explained().items():
        value = "" if field.default_factory is not None else field.default
        rows.append(
            (
                code(field.alias or name),
                value_of(type_name(field.annotation, field.metadata), options.bounds(field)),
                default(field.is_required(), value),
                field.description or "",
            )
        )
    headings = ("field", "value", "default", "meaning")
    return f"{level} {model.__name__}\n\n{prose(model)}\n\n{table(headings, rows)}"


def document_page() -> str:
    seen: dict[type[Explained], None] = {}
    todo: list[type[Explained]] = [KINDS[name] for name in KINDS]
    while todo:
        model = todo.pop(0)
        if model not in seen:
            seen[model] = None
            todo += [m for f in model.model_fields.values() for m in models_in(f.annotation)]
    sections = [model_section(model) for model in seen]
    joined = "\n".join(sections)
    return f"# Documents\n\n{DOCUMENTS}\n\n{joined}"


# ------------------------------------------------------------------------------------------- all


def between(page: str, mark: str, made: str) -> str:
    """A page of the tree with what stands between its markers made anew."""
    start, stop = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = (ROOT / page).read_text().partition(start)
    return f"{before}{start}\n\n{made}\n{stop}{rest.partition(stop)[2]}"


def readme() -> str:
    """README.md with its table of faults."""
    rows = fault_rows("docs/reference/faults/")
    headings = ("fault", "what the target suffers", "ended at its deadline by")
    return between("README.md", "faults", table(headings, rows))


def with_example(page: str) -> str:
    """A page with the worked example, taken from its file."""
    example = (ROOT / "docs" / "examples" / "certificate.py").read_text()
    return between(page, "example", f"```python\n{example}```\n")


def with_capabilities(page: str) -> str:
    """A page with the table of capabilities."""
    rows = ((code(each.name), each.text) for each in capabilities.needed())
    listed = table(("capability", "what it is for, by family of faults"), rows)
    return between(page, "capabilities", listed)


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    reference = {
        **dict(fault_pages()),
        "parameters.md": parameter_page(),
        "errors.md": error_page(),
        "cli.md": command_page(),
        "documents.md": document_page(),
        "kubernetes-faults.md": kube_faults.page(),
    }
    made = {REFERENCE / name: f"{NOTE}{text.rstrip()}\n" for name, text in reference.items()}
    worked = {ROOT / page: with_example(page) for page in WITH_EXAMPLE}
    charted = {ROOT / "deploy" / "chart" / name: text for name, text in chart.files().items()}
    told = {ROOT / page: with_capabilities(page) for page in ("docs/install-kubernetes.md",)}
    return {**made, **worked, **charted, **told, ROOT / "README.md": readme()}


def main() -> None:
    """Write what has changed and remove pages of faults that are gone."""
    wanted = pages()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            click.echo(f"wrote {path.relative_to(ROOT)}")
    for path in REFERENCE.rglob("*.md"):
        if path not in wanted:
            path.unlink()
            click.echo(f"removed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
