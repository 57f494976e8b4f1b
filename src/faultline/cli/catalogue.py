"""`faults` and `explain`: what there is and what each one does, from the registry."""

from __future__ import annotations

import importlib
from typing import Any

import click

from faultline.cli import options, output
from faultline.injection import registry
from faultline.places.model import CONTAINER, HOST, KINDS


def _summary(fault: Any) -> str:
    return (fault.__doc__ or "").strip().splitlines()[0]


def _names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Completion: families, and the faults of the family that was typed before."""
    family = _ctx.params.get("family")
    known = registry.families()
    found = list(known)
    if _param.name == "fault" and family in known:
        found = [fault_id.partition(".")[2] for fault_id in registry.family(family)]
    return [name for name in found if name.startswith(incomplete)]


@click.command()
@click.argument("family", required=False, shell_complete=_names)
@output.format_option
def faults(family: str | None, form: str) -> int:
    """List the faults there are, or those of one FAMILY."""
    found = registry.family(family) if family else registry.everything()
    if form != "table":
        output.emit([describe(fault_id) for fault_id in found], form)
        return 0
    click.echo(_listed(found))
    return 0


def _listed(found: dict[str, Any]) -> str:
    rows = [
        (fault_id.replace(".", " "), str(fault.ending), _summary(fault))
        for fault_id, fault in found.items()
    ]
    return output.table(("FAULT", "ENDED BY", "WHAT"), rows)


def describe(fault_id: str) -> dict[str, Any]:
    """A fault as data: what the docs, the schema and `explain` are made of."""
    fault = registry.get(fault_id)
    model = fault.params_type()
    return {
        "fault": fault_id,
        "summary": _summary(fault),
        "does": fault.does,
        "places": [kind for kind in KINDS if kind in fault.places],
        "needs": sorted(fault.needs),
        "cannot": fault.cannot,
        "measures": fault.measures,
        "restores": fault.restores,
        "ends": str(fault.ending),
        "example": fault.example,
        "parameters": [
            {
                "name": name,
                "flags": options.flags(name, field),
                "kind": options.unit(field),
                "bounds": options.bounds(field),
                "required": field.is_required(),
                "default": options.default_of(field) or None,
                "help": " ".join((field.description or "").split()),
            }
            for name, field in model.explained().items()
        ],
    }


def example_target(fault: registry.AnyFault) -> dict[str, str]:
    """What an example must name beside its parameters: a container for what has no host."""
    return {} if HOST in fault.places else {CONTAINER: "web"}


def aspects(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What people are told of a fault, as titles and texts."""
    return [
        ("What it does to the kernel", about["does"]),
        ("Where it acts", ", ".join(about["places"])),
        ("What it needs", ", ".join(about["needs"]) or "nothing special"),
        ("What it cannot do", about["cannot"]),
        ("How its effect is measured", about["measures"]),
        ("What undo restores", about["restores"]),
        ("What ends it at its deadline", f"{about['ends']}: {output.ENDINGS[about['ends']]}"),
    ]


@click.command()
@click.argument("family", shell_complete=_names)
@click.argument("fault", required=False, shell_complete=_names)
@output.format_option
def explain(family: str, fault: str | None, form: str) -> int:
    """Explain FAMILY FAULT (or FAMILY.FAULT); of a FAMILY alone, what it has."""
    fault_id = f"{family}.{fault}" if fault else family
    if "." not in fault_id:
        return _explain_family(family, form)
    about = describe(fault_id)
    if form != "table":
        output.emit(about, form)
        return 0
    output.say(fault_id.replace(".", " "), bold=True)
    for line in (registry.get(fault_id).__doc__ or "").strip().splitlines():
        click.echo(f"  {line.strip()}".rstrip())
    for title, text in aspects(about):
        output.say(f"\n{title}", bold=True)
        click.echo(_wrapped(text, "  "))
    output.say("\nParameters", bold=True)
    for each in about["parameters"]:
        _explain_parameter(each)
    given = {**example_target(registry.get(fault_id)), **about["example"]}
    words = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in given.items())
    output.say("\nExample", bold=True)
    click.echo(f"  faultline inject {fault_id.replace('.', ' ')} {words}".rstrip())
    return 0


def _explain_family(family: str, form: str) -> int:
    found = registry.family(family)
    if form != "table":
        output.emit([describe(fault_id) for fault_id in found], form)
        return 0
    module = importlib.import_module(registry.families()[family])
    output.say(family, bold=True)
    for paragraph in (module.__doc__ or "").strip().split("\n\n"):
        click.echo(_wrapped(" ".join(paragraph.split()), "  ") + "\n")
    click.echo(_listed(found))
    click.echo(f"\nmore about one: faultline explain {family} FAULT")
    return 0


def _explain_parameter(each: dict[str, Any]) -> None:
    given = "required" if each["required"] else f"default {each['default'] or 'none'}"
    facts = "; ".join(filter(None, (each["kind"], each["bounds"], given)))
    click.echo(f"  {click.style(each['flags'], bold=True)}  ({facts})")
    click.echo(_wrapped(each["help"], "      "))


def _wrapped(text: str, indent: str) -> str:
    return click.wrap_text(text, min(output.terminal_width() or 96, 96), indent, indent)
