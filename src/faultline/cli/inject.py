"""`inject`, `plan` and `apply`: from flags to a plan to a measured fault."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from faultline.changes.model import End
from faultline.cli import ahead, clusterplan, follow, options, output, records, target
from faultline.cli.naming import Suggesting
from faultline.cli.session import state_folder, write
from faultline.errors import InvalidDocument, InvalidParameter, UnknownName
from faultline.injection import registry
from faultline.injection.injector import Injector
from faultline.injection.plan import DEFAULT_DURATION, Order, Plan
from faultline.injection.reading import Effect, Reading
from faultline.units import Duration

EXIT_NOT_EFFECTIVE = 4
EXIT_INTERRUPTED = 130


class _Families(Suggesting):
    """FAMILY -> FAULT -> options, read from the registry."""

    noun = "family"

    def __init__(self, verb: str, **kwargs: Any) -> None:
        super().__init__(name=verb, **kwargs)
        self.verb = verb

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(registry.families())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        family, dot, fault = cmd_name.partition(".")
        with ahead.no_plugins():
            try:
                registry.module_of(family)
            except UnknownName:
                return None
            if dot:
                registry.get(cmd_name)  # or it says which one was meant
            found = _Family(self.verb, family)
        return found.get_command(ctx, fault) if dot else found


class _Family(Suggesting):
    noun = "fault"

    def __init__(self, verb: str, family: str) -> None:
        doc = importlib.import_module(registry.module_of(family)).__doc__ or ""
        super().__init__(name=family, help=doc.strip())
        self.verb, self.family = verb, family

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [fault_id.partition(".")[2] for fault_id in registry.family(self.family)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        fault_id = f"{self.family}.{cmd_name}"
        fault = registry.family(self.family).get(fault_id)
        if fault is None:
            return None
        return click.Command(
            cmd_name,
            params=[
                *options.options_of(fault.params_type()),
                *target.options_for(fault),
                *(follow.options_for(fault) if self.verb == "inject" else ()),
                *_common(self.verb),
            ],
            help=(fault.__doc__ or "").strip(),
            callback=partial(_called, _VERBS[self.verb], fault_id),
            context_settings={"help_option_names": ["-h", "--help"]},
        )


def _called(act: Callable[[str, dict[str, Any]], int], fault_id: str, /, **values: Any) -> int:
    return act(fault_id, values)


def _common(verb: str) -> list[click.Parameter]:
    shared: list[click.Parameter] = [
        click.Option(
            ["-t", "--duration", "fault_duration"],
            default=str(DEFAULT_DURATION), show_default=True,
            help="How long the fault lasts at most; every fault has an end.",
        ),
        click.Option(["--uid", "fault_uid"], help="Name this fault; made up when not given."),
        click.Option(
            ["--allow", "fault_allow"], multiple=True, help="Override the guard of this name."
        ),
        click.Option(["--creator", "fault_creator"], help="Who asks; else your user name."),
        click.Option(
            ["--seed", "fault_seed"], type=click.IntRange(0, 2**53 - 1), metavar="NUMBER",
            help="What it leaves to chance is drawn from this; else from a number drawn now.",
        ),
        click.Option(["--format", "form"], **output.FORMAT),
    ]  # fmt: skip
    if verb == "plan":
        shared.append(
            click.Option(
                ["-o", "--output", "file"],
                type=click.Path(path_type=Path),
                help="Save the plan here.",
            )
        )
    else:
        shared.append(
            click.Option(
                ["--no-observe", "blind"], is_flag=True, help="Do not measure the effect now."
            )
        )
    return shared


def _order(fault_id: str, values: dict[str, Any]) -> Order:
    return Order(
        fault=fault_id,
        duration=Duration.parse(values.pop("fault_duration"), "duration"),
        uid=values.pop("fault_uid") or "",
        allow=frozenset(values.pop("fault_allow")),
        creator=values.pop("fault_creator") or "",
        seed=values.pop("fault_seed"),
        target=target.taken(values),
        params=options.given(values),
    )


@contextlib.contextmanager
def _explained(fault_id: str) -> Generator[None]:
    """A parameter that was refused is named as it was typed, with what it takes."""
    try:
        yield
    except InvalidParameter as error:
        fields = registry.get(fault_id).params_type().explained()
        field = fields.get(error.field)
        if field is not None:
            flags = options.flags(error.field, field)
            if error.given is None and field.is_required():
                error.message = f"{flags.rpartition(' ')[2]} is required"
            about = f"{flags}: {options.help_of(field)}"
            error.hint = "\n  ".join(filter(None, (error.hint, about)))
        raise


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """SIGTERM interrupts like Ctrl-C, so that what was begun is undone."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _inject(fault_id: str, values: dict[str, Any]) -> int:
    form, blind = values.pop("form"), values.pop("blind")
    stay = values.pop("follow", False)
    order = _order(fault_id, values)
    if stay:
        follow.check(order)
    with Injector(state_folder()) as injector, _terminable():
        injector.check_halt()
        injector.adopt()
        with output.waiting("looking", quiet=form != "table"), _explained(fault_id):
            plan = injector.plan(order)
        act = partial(_do, injector, form=form, blind=blind, act=injector.carry_out)
        code = act(plan)
        if stay and code in (0, EXIT_NOT_EFFECTIVE):
            return follow.follow(injector, order, plan, act)
        return code


def _do(injector: Injector, plan: Plan, form: str, blind: bool, act: Callable[[Plan], Any]) -> int:
    quiet = form != "table"
    with output.waiting("writing it down, having it kept, making the changes", quiet=quiet):
        record = act(plan)
    try:
        if not quiet:
            _show_made(plan, output.remaining(record))
        return 0 if blind and not quiet else _measured(injector, record.uid, form, blind)
    except KeyboardInterrupt:
        click.echo("interrupted: undoing", err=True)
        end = injector.recover(record.uid).end
        click.echo(f"{record.uid}: {output.coloured(str(end))}", err=True)
        return records.EXIT_INCOMPLETE if end is End.PERSON else EXIT_INTERRUPTED


def _show_made(plan: Plan, remaining: str) -> None:
    output.say(f"uid: {plan.uid}", bold=True)
    for note in plan.notes:
        click.echo(f"note: {note}")
    for step in plan.steps:
        click.echo(f"  {step.does}")
    click.echo(f"ends: {remaining} ({plan.ending}); earlier: faultline recover {plan.uid}")


def _measured(injector: Injector, uid: str, form: str, blind: bool) -> int:
    quiet = form != "table"
    reading = None
    if not blind:
        with output.waiting("measuring the effect", quiet=quiet):
            reading = injector.observe(uid)
    if quiet:
        output.emit(output.record_json(injector.get(uid)), form)
    elif reading:
        show_reading(reading)
    return EXIT_NOT_EFFECTIVE if reading and reading.effect is not Effect.EFFECTIVE else 0


def show_reading(reading: Reading) -> None:
    """Asked against measured, in one line and the reason in another."""
    measured = f", measured {reading.measured}" if reading.measured else ""
    click.echo(f"effect: {output.coloured(reading.effect)}: asked {reading.asked}{measured}")
    if reading.reason:
        click.echo(f"  because: {reading.reason}")


def _plan(fault_id: str, values: dict[str, Any]) -> int:
    form, file = values.pop("form"), values.pop("file")
    order = _order(fault_id, values)
    with Injector(state_folder()) as injector, _explained(fault_id):
        made = injector.plan(order)
    if file:
        write(file, json.dumps(made.to_json(), indent=2) + "\n")
    if form != "table":
        output.emit(made.to_json(), form)
        return 0
    _show_plan(made)
    if file:
        click.echo(f"saved: {file}; carry it out with: faultline apply {file}")
    return 0


def _show_plan(made: Plan) -> None:
    output.say(f"{made.fault} on {made.place.words} (uid {made.uid})", bold=True)
    output.field("parameters", records.parameters(_telling(made)))
    if made.engine:
        output.field("engine", made.engine)
        for name, why in made.others.items():
            output.field("", f"{name} is {why}")
    if made.exempt is not None:
        nobody = "nobody: this command was not called over a network connection"
        output.field("exempt", "; ".join(made.exempt) or nobody)
    for note in made.notes:
        output.field("note", note)
    click.echo("changes, in this order; undone in the other")
    for number, step in enumerate(made.steps, 1):
        output.field(f"  {number}. do", step.does)
        output.field("     undo", step.undo)
    how = output.ENDINGS.get(made.ending, "")
    output.field("ends", f"after {made.duration} at the latest, {made.ending}: {how}")
    click.echo("nothing was touched")


def _telling(made: Plan) -> dict[str, Any]:
    """The parameters that are not as they would be anyway."""
    fields = registry.get(made.fault).params_type().model_fields
    return {
        name: value
        for name, value in made.params.items()
        if fields[name].is_required()
        or value != fields[name].get_default(call_default_factory=True)
    }


_VERBS = {"inject": _inject, "plan": _plan}

inject = _Families(
    "inject",
    help="Inject a fault now, measure its effect, and say how to undo it.\n\n"
    "The fault goes on after this command has ended, until its deadline or `faultline recover "
    "UID`. Ctrl-C before that undoes it.",
)
plan = _Families(
    "plan",
    help="Show what a fault would change, and how it would be undone. Touches nothing.\n\n"
    "With -f: whom a Fault would hit in a Kubernetes cluster.",
    invoke_without_command=True,
    params=[make() for make in clusterplan.OPTIONS],
    callback=click.pass_context(clusterplan.called),
)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--no-observe", "blind", is_flag=True, help="Do not measure the effect now.")
@output.format_option
def apply(file: Path, blind: bool, form: str) -> int:
    """Carry out the plan saved in FILE, or refuse if the world has moved since."""
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidDocument(
            f"{file} is not a saved plan: {error}", hint="make one: faultline plan ... -o FILE"
        ) from error
    with Injector(state_folder()) as injector, _terminable():
        injector.check_halt()
        injector.adopt()
        return _do(injector, Plan.from_json(data), form, blind, injector.apply)
