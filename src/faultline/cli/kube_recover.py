"""`kube recover`: undo what faults of objects have left in a cluster, where no operator does."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from faultline.cli import output
from faultline.errors import RecoveryIncomplete, UnknownName

if TYPE_CHECKING:
    from faultline.kubeapi.model import ApiError, Kind
    from faultline.operator.byhand import Left


@click.command()
@click.argument("names", metavar="[FAULT]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Also what is not over yet.")
@click.option("--dry-run", is_flag=True, help="Say what is there, and undo nothing.")
@click.option("--kubeconfig", metavar="FILE", help="How the cluster is reached.")
@click.option("--context", metavar="NAME", help="Which one of it.")
@output.format_option
def recover(
    names: tuple[str, ...], everything: bool, dry_run: bool, kubeconfig: str | None,
    context: str | None, form: str,
) -> int:  # fmt: skip
    """Undo faults of Kubernetes objects with your own rights: no operator is needed.

    Objects are found by the marks on them and by what the operator has recorded. Without a FAULT,
    which is a uid or NAMESPACE/NAME, it is what should be over, and what belongs to no Fault any
    more. Harmless beside an operator: what is undone is not undone twice.
    """
    from faultline.cli.operator import connection
    from faultline.kubeapi.client import Client
    from faultline.operator import byhand

    unread: list[str] = []

    def cannot(kind: Kind, error: ApiError) -> None:
        unread.append(f"{kind.plural}: {error.message}")

    rows: list[tuple[str, ...]] = []
    person = False
    with closing(Client(connection(kubeconfig, context))) as client:
        found = byhand.find(client, cannot)
        for each in _meant(found, names, everything):
            how, note = "there", ""
            if not dry_run:
                done = byhand.recover(client, each)
                how, note = str(done.how), done.note
                person = person or how == "needs a person"
            rows.append((each.uid, each.owner or "-", _objects(each), _until(each), how, note))
    _show(rows, form)
    for each in unread:
        click.echo(output.harmless(f"not looked at: {each}"), err=True)
    if person:
        raise RecoveryIncomplete("not all of it is undone", hint="see what is said of each")
    return 0


def _meant(found: list[Left], names: tuple[str, ...], everything: bool) -> list[Left]:
    now = time.time()
    if not names:
        return [each for each in found if everything or each.overdue(now)]
    for name in names:
        if not any(each.is_of(name) for each in found):
            raise UnknownName(
                f"nothing of {name} is there", hint="faultline kube recover --all --dry-run"
            )
    return [each for each in found if any(each.is_of(name) for name in names)]


def _objects(each: Left) -> str:
    more = f" and {len(each.words) - 3} more" if len(each.words) > 3 else ""
    return f"{', '.join(each.words[:3])}{more}"


def _until(each: Left) -> str:
    left = each.until - time.time()
    if each.orphan or not each.until:
        return "nobody wants it" if each.orphan else "-"
    return f"ends in {output.ago(left)}" if left > 0 else f"{output.ago(-left)} overdue"


def _show(rows: list[tuple[str, ...]], form: str) -> None:
    headings = ("UID", "WHO", "OBJECTS", "END", "IT IS", "NOTE")
    if form != "table":
        keys = ("uid", "owner", "objects", "until", "state", "note")
        output.emit([dict(zip(keys, row, strict=True)) for row in rows], form)
    elif rows:
        click.echo(output.table(headings, rows))
    else:
        click.echo("nothing to undo is there")
