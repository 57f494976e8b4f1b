"""`kube faults`: the faults of Kubernetes objects, and what each does, from their registry."""

from __future__ import annotations

from typing import Any

import click

from faultline.cli import options, output
from faultline.kubefaults import registry

TITLES = {
    "does": "What it does to the objects",
    "cannot": "What it cannot do",
    "measures": "How its effect is measured",
    "restores": "What undo restores",
}
ABOUT = """\
Faults of Kubernetes objects need no agent and no node: they are carried out over the API server.
Each is a set of fields, or objects, that are changed for a while. What is needed to undo it is
written into the object in the same request as the change, so that it is found without any record.
Undoing puts back each field that still has our value; what somebody else has changed meanwhile is
left alone and reported.

A `Fault` names one of them like any other; the operator carries it out, and ends it at its deadline
or when the `Fault` is deleted. Where no operator runs, nobody ends them: `faultline kube recover`
undoes them with the rights of whoever runs it. See [faults of objects](../kubernetes.md) and
[how they fit together](../faults-kubernetes.md)."""


def describe(fault_id: str) -> dict[str, Any]:
    """A fault as data; raises UnknownName."""
    fault = registry.get(fault_id)
    text = " ".join((fault.__doc__ or "").split())
    return {
        "fault": fault_id,
        "summary": (fault.__doc__ or "").strip().splitlines()[0],
        "text": text,
        "kinds": list(fault.kinds) or ["any kind"],
        **{name: getattr(fault, name) for name in TITLES},
        "parameters": [
            {
                "name": name,
                "kind": options.unit(field),
                "bounds": options.bounds(field),
                "required": field.is_required(),
                "default": options.default_of(field) or None,
                "help": " ".join((field.description or "").split()),
            }
            for name, field in fault.params_type().explained().items()
        ],
    }


def page() -> str:
    """The reference page of all of them, in Markdown."""
    parts = [f"# Faults of Kubernetes objects\n\n{ABOUT}\n"]
    for fault_id in registry.faults():
        about = describe(fault_id)
        parts.append(f"## {fault_id}\n\n{about['text']}\n")
        rows = [
            (
                f"`{each['name']}`",
                _cell(", ".join(filter(None, (each["kind"], each["bounds"])))),
                "required" if each["required"] else _cell(each["default"] or ""),
                _cell(each["help"]),
            )
            for each in about["parameters"]
        ]
        if rows:
            parts.append(_table(("parameter", "value", "default", "meaning"), rows))
        told = [("**Targets**", ", ".join(about["kinds"]))]
        told += [(f"**{title}**", _cell(about[name])) for name, title in TITLES.items()]
        parts.append(_table(("", ""), told))
    return "\n".join(parts)


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("fault", required=False)
@output.format_option
def faults(fault: str | None, form: str) -> int:
    """List the faults of Kubernetes objects, or explain one FAULT, as `pod.evict`.

    A `Fault` names one like any other; the operator carries it out.
    """
    if form != "table":
        found = [fault] if fault else list(registry.faults())
        output.emit([describe(each) for each in found], form)
        return 0
    if fault is None:
        rows = [
            (each, ", ".join(about["kinds"]), about["summary"])
            for each in registry.faults()
            for about in (describe(each),)
        ]
        click.echo(output.table(("FAULT", "TARGETS", "WHAT"), rows))
        return 0
    about = describe(fault)
    output.say(fault, bold=True)
    click.echo(f"  {about['text']}")
    for name, title in TITLES.items():
        output.say(f"\n{title}", bold=True)
        click.echo(f"  {about[name]}")
    output.say("\nParameters", bold=True)
    for each in about["parameters"]:
        bounds = ", ".join(filter(None, (each["kind"], each["bounds"])))
        given = "required" if each["required"] else f"default {each['default'] or 'none'}"
        click.echo(f"  {each['name']} ({bounds}; {given})\n      {each['help']}")
    return 0
