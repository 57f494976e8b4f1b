"""Entry point: the table of commands, and the one place where an error becomes words and an exit
status.

Nothing heavy is imported here. `query`, `recover` and completion must not pay for parameter models.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from types import TracebackType
from typing import Any

import click

from faultline import __version__
from faultline.cli import output
from faultline.cli.naming import COMPLETION, Suggesting
from faultline.errors import FaultlineError, Unsupported

EXIT_UNFORESEEN = 1
EXIT_INTERRUPTED = 130

_WITH_PARAMETERS = ("inject", "plan")  # they load the models of a family of faults
_NOTHING_LEFT = ("inject", "plan", "apply", "query", "recover")  # no thread, no handler of an exit

# Command name to 'module:attribute' and the line that the top help shows for it.
COMMANDS: dict[str, tuple[str, str]] = {
    "inject": ("inject:inject", "Inject a fault now and measure its effect."),
    "plan": ("inject:plan", "Show what a fault would change and how it would be undone."),
    "apply": ("inject:apply", "Do what a saved plan says, or refuse if the world has moved."),
    "query": ("records:query", "List faults: active, ended, and those that need a person."),
    "recover": ("records:recover", "Undo faults and prove that they are gone."),
    "watch": ("records:watch", "A live table of the active faults."),
    "halt": ("halt:halt", "Undo everything and block new faults until it is lifted."),
    "faults": ("catalogue:faults", "List the faults there are."),
    "explain": ("catalogue:explain", "What a fault does, needs, measures and restores."),
    "doctor": ("doctor:doctor", "Try which faults work here, and say why the others do not."),
    "conformance": ("conformance:conformance", "Check a plug-in of yours: its manifest, for real."),
    "demo": ("demo:demo", "Run a real experiment on this machine, in namespaces of its own."),
    "run": ("experiments:run", "Run an experiment and judge it."),
    "experiments": ("kept:experiments", "List, add and remove the experiments of the store."),
    "runs": ("history:runs", "List the runs of experiments, prune them, put them into files."),
    "signal": ("signals:signal", "Report to a run: found, located, fixed."),
    "report": ("reporting:report", "Write, print or send the report of a run."),
    "approve": ("wishes:approve", "Let a run go on behind a node that asks."),
    "refuse": ("wishes:refuse", "Refuse what a node of a run asks for."),
    "pause": ("wishes:pause", "Begin nothing new in a run."),
    "continue": ("wishes:proceed", "Go on with a paused run."),
    "abort": ("wishes:abort", "Undo every fault of a run and end it."),
    "rerun": ("wishes:rerun", "Carry a run out once more from one of its nodes."),
    "replay": ("again:replay", "Carry out once more what a run did."),
    "shrink": ("again:shrink", "Find the fewest faults with which a run still fails."),
    "regression": ("again:regression", "The experiment of a search at a value that is borne."),
    "schedule": ("schedule:schedule", "Run experiments by the calendar: see, pause, trigger them."),
    "validate": ("experiments:validate", "Check a document without running it."),
    "traffic": ("traffic:traffic", "Run a load alone; import one from JMeter, HAR or OpenAPI."),
    "engine": ("engine:engine", "Keep the schedules and runs of this host, unattended."),
    "agent": ("agent:agent", "Make this host suffer what a Kubernetes cluster wants."),
    "operator": ("operator:operator", "Carry out the Faults of a Kubernetes cluster."),
    "kube": ("kube:kube", "The custom resources for a Kubernetes cluster."),
    "boot": ("boot:boot", "Recover what survived a reboot; install the unit that does it."),
    "completion": ("completion:completion", "Print the completion script for your shell."),
}


class LazyGroup(Suggesting):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _WITH_PARAMETERS:
            from faultline.cli import ahead

            if args[0] == "inject":
                ahead.keepers(ctx.params["state"], args[1:])
            with ahead.no_plugins():
                return super().resolve_command(ctx, args)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(f"faultline.cli.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [n for n in COMMANDS if n.startswith(incomplete)]
        names = [CompletionItem(name, help=COMMANDS[name][1]) for name in found]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="faultline")
@click.option(
    "--state",
    metavar="FOLDER",
    envvar="FAULTLINE_STATE",
    help="Where the journal lies. Default: /var/lib/faultline as root, else the XDG state folder.",
)
@click.option(
    "--store",
    metavar="PATH|URL",
    envvar="FAULTLINE_STORE",
    help="Where runs are kept: a file, postgresql://HOST/DATABASE, or kube://NAMESPACE. "
    "Default: in --state.",
)
@click.pass_context
def cli(ctx: click.Context, state: str | None, store: str | None) -> None:
    """Break things on purpose, prove that it happened, prove that it is gone.

    Exit status: 0 ok, 1 unforeseen error, 2 bad input, 3 refused by a guard, 4 not effective or
    not measured, 5 verdict broke, 6 recovery incomplete, 7 not possible here, 8 aborted by a guard
    of the experiment, 130 interrupted.
    """
    ctx.obj = {"state": state, "store": store}
    ctx.color = output.wants_colour()


def main() -> None:
    """Run the command line; never returns."""
    sys.excepthook = _unforeseen
    try:
        sys.exit(_quickly(_run()))
    except click.exceptions.Exit as asked:  # --help, --version
        sys.exit(asked.exit_code)
    except FaultlineError as error:
        _complain(error.as_dict())
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _complain(_of_click(error))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; that is its right. Nothing is left to be flushed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _run() -> int:
    """One call. Not by click's own entry, which takes a closed pipe and Ctrl-C for failures."""
    if COMPLETION in os.environ:
        cli.main(prog_name="faultline", complete_var=COMPLETION)
    with cli.make_context("faultline", sys.argv[1:]) as ctx:
        status = cli.invoke(ctx)
    sys.stdout.flush()
    return status if isinstance(status, int) else 0


def _quickly(status: int) -> int:
    """End here and now if the command is one that leaves nothing to be done at the end: to take
    apart what was loaded takes as long as a fifth of the command.
    """
    asked = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    if asked in _NOTHING_LEFT:
        sys.stderr.flush()
        os._exit(status)  # the other stream has been written out
    return status


def _of_click(error: click.ClickException) -> dict[str, Any]:
    """What click found wrong with the words of the command line, in the form of our own errors."""
    ctx = getattr(error, "ctx", None)
    hint = f"see: {ctx.command_path} --help" if ctx else ""
    return {
        "code": "usage",
        "message": error.format_message().rstrip("."),
        "hint": hint,
        "happened": "nothing",
        "retry": False,
    }


def _complain(error: dict[str, Any]) -> None:
    if error["code"] == Unsupported.code and os.geteuid() != 0:
        rights = (
            "you are not root: try sudo, or a network of your own (unshare --user --net -r); "
            "what works without it: faultline doctor"
        )
        error = {**error, "hint": "\n  ".join(filter(None, (error["hint"], rights)))}
    if _asked_for_data():
        import json

        click.echo(json.dumps({"error": error}), err=True)
        return
    colour = output.wants_colour()
    click.secho(f"error: {error['message']}", fg="red", err=True, color=colour)
    if error["hint"]:
        click.echo(f"  {error['hint']}", err=True)
    if error["happened"] != "nothing":
        click.echo(f"  did anything happen to the target: {error['happened']}", err=True)


def _asked_for_data() -> bool:
    arguments = sys.argv[1:]
    pairs = itertools.pairwise(arguments)
    asked = {after for before, after in pairs if before == "--format"}
    asked |= {each.partition("=")[2] for each in arguments if each.startswith("--format=")}
    return bool(asked & {"json", "yaml"})


def _unforeseen(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What nobody foresaw: the trace for whoever mends it, and what it means for the user."""
    import traceback

    lines = traceback.format_exception(kind, error, trace)
    if not _asked_for_data():
        click.echo("".join(lines), err=True, nl=False)
    _complain(
        {
            "code": FaultlineError.code,
            "message": f"this was not foreseen: {kind.__name__}: {error}",
            "hint": "see what is there: faultline query; undo it: faultline recover --all; "
            "and please report this",
            "happened": "maybe",
            "retry": False,
            **({"trace": lines} if _asked_for_data() else {}),
        }
    )


if __name__ == "__main__":
    main()
