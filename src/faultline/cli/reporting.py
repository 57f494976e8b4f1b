"""`report`: a run for people, for continuous integration, and for the tools that show what happened
when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faultline.cli import ahead
from faultline.cli.experiments import run_names
from faultline.cli.session import state_folder, store_place, write
from faultline.errors import Unsupported, UsageError

if TYPE_CHECKING:
    from faultline.api.run import Run

FORMS = ("html", "text", "json", "junit", "markdown", "otel", "grafana")
SENT = ("otel", "grafana")
_ENDINGS = {".html": "html", ".htm": "html", ".json": "json", ".xml": "junit", ".md": "markdown",
            ".txt": "text"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for."""

    kind: str
    to: str
    headers: dict[str, str]
    dashboard: str
    panel: int


@click.command()
@click.argument("name", metavar="[RUN]", required=False, shell_complete=run_names)
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Write it here.")
@click.option(
    "-f",
    "--format",
    "--as",
    "kind",
    type=click.Choice(FORMS),
    help="In this form. Without it, by the ending of the file; text when it is printed.",
)
@click.option("--compare", "earlier", metavar="RUN", shell_complete=run_names,
              help="Compare with this run; without it, with the one before of the same "
              "experiment.")  # fmt: skip
@click.option("--no-compare", is_flag=True, help="Compare with nothing.")
@click.option(
    "--to", metavar="URL", help="Send it: otel to a collector (OTLP over HTTP), grafana to Grafana."
)
@click.option("--token-env", metavar="NAME", help="With --to: the variable with a bearer token.")
@click.option("--token-file", metavar="FILE", help="With --to: the file with a bearer token.")
@click.option("--dashboard", metavar="UID", default="", help="With grafana: of this dashboard.")
@click.option("--panel", type=click.IntRange(0), default=0, help="With grafana: of this panel.")
def report(name: str | None, target: Path | None, kind: str | None, **more: Any) -> int:
    """The report of RUN (the latest when not named): HTML, text, JSON, JUnit XML or Markdown; or
    sent as spans to OpenTelemetry or as annotations to Grafana.
    """
    kind = kind or (_ENDINGS.get(target.suffix, "html") if target else "text")
    wanted = _Wanted(kind, more["to"] or "", _headers(more), more["dashboard"], more["panel"])
    _check(wanted, target, more)
    with ahead.no_plugins():
        done, earlier = _runs(name, more["earlier"], alone=more["no_compare"] or kind in SENT)
    if wanted.to:
        click.echo(_send(done, wanted))
        return 0
    made = make(done, earlier, wanted)
    if target:
        write(target, made)
        click.echo(target)
    else:
        click.echo(made, nl=not made.endswith("\n"))
    return 0


def _check(wanted: _Wanted, target: Path | None, more: dict[str, Any]) -> None:
    if wanted.to and wanted.kind not in SENT:
        raise UsageError(f"--to goes with --format {' or '.join(SENT)}")
    if wanted.to and target:
        raise UsageError("either write it (--output) or send it (--to)")
    if wanted.headers and not wanted.to:
        raise UsageError("a token goes with --to")
    if (wanted.dashboard or wanted.panel) and wanted.kind != "grafana":
        raise UsageError("--dashboard and --panel go with --format grafana")
    if wanted.panel and not wanted.dashboard:
        raise UsageError("--panel goes with --dashboard")
    if more["earlier"] and more["no_compare"]:
        raise UsageError("either --compare RUN or --no-compare")


def _headers(more: dict[str, Any]) -> dict[str, str]:
    """The token as it is sent. It is read here and shown nowhere."""
    env, file = more["token_env"] or "", more["token_file"] or ""
    if not env and not file:
        return {}
    if env and file:
        raise UsageError("either --token-env or --token-file")
    from faultline.api.secret import SecretRef

    token = SecretRef(env=env, file=file).resolve().strip()
    return {"Authorization": f"Bearer {token}"}


def _runs(name: str | None, earlier: str | None, *, alone: bool) -> tuple[Run, Run | None]:
    """The run, and the one that it is compared with. Nothing of the engine is loaded for it."""
    from faultline.stores.opening import open_store

    with open_store(store_place(), state_folder()) as store:
        latest = store.summaries("Run", limit=1)
        if not name and not latest:
            raise UsageError("there are no runs", hint="make one: faultline run FILE")
        from faultline.api.run import Run
        from faultline.report.compare import previous

        done = store.get(Run, name or latest[0].name)
        if earlier:
            return done, store.get(Run, earlier)
        return done, None if alone else previous(store, done)


def make(done: Run, earlier: Run | None, wanted: _Wanted) -> str:
    """The report as text; raises Unsupported where a package is missing."""
    try:
        return _FORMS[wanted.kind](done, earlier, wanted)
    except ImportError as error:
        raise Unsupported(
            f"the report needs {error.name}",
            hint="install it: pip install 'faultline[experiments]'",
        ) from error


def _rendered(done: Run, earlier: Run | None, wanted: _Wanted) -> str:
    from faultline.report import render

    if wanted.kind == "json":
        return render.json(done)
    return render.html(done, earlier) if wanted.kind == "html" else render.text(done, earlier)


def _junit(done: Run, _earlier: Run | None, _wanted: _Wanted) -> str:
    from faultline.report import junit

    return junit.junit(done)


def _markdown(done: Run, earlier: Run | None, _wanted: _Wanted) -> str:
    from faultline.report import markdown

    return markdown.markdown(done, earlier)


def _otel(done: Run, _earlier: Run | None, _wanted: _Wanted) -> str:
    from faultline.report import spans

    return spans.otlp_json(done)


def _grafana(done: Run, _earlier: Run | None, wanted: _Wanted) -> str:
    from faultline.report import annotations

    return annotations.to_json(done, wanted.dashboard, wanted.panel)


# Each loads what its form needs: one of them a client of HTTP, another a writer of XML.
_FORMS: dict[str, Callable[[Run, Run | None, _Wanted], str]] = {
    "html": _rendered, "text": _rendered, "json": _rendered, "junit": _junit,
    "markdown": _markdown, "otel": _otel, "grafana": _grafana,
}  # fmt: skip


def _send(done: Run, wanted: _Wanted) -> str:
    if wanted.kind == "otel":
        from faultline.report import spans

        count = spans.send(done, wanted.to, wanted.headers)
        return f"{count} spans sent to {wanted.to}"
    from faultline.report import annotations

    made = annotations.send(done, wanted.to, wanted.headers, wanted.dashboard, wanted.panel)
    return f"{made} annotations made in {wanted.to}"
