"""Recovery at boot: what survived a reboot is undone before anybody asks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click

from faultline.changes import frozen
from faultline.changes.model import End
from faultline.cli import output
from faultline.cli.naming import Suggesting
from faultline.cli.records import report_recovery
from faultline.cli.session import state_folder
from faultline.errors import Unsupported
from faultline.injection.recovery import Recovery
from faultline.kernel import clock

UNIT = Path("/etc/systemd/system/faultline-boot.service")
TEMPLATE = """[Unit]
Description=Recover faults of Faultline that survived a reboot
RequiresMountsFor={state}
After=local-fs.target
Before=network-pre.target

[Service]
Type=oneshot
Environment=FAULTLINE_STATE={state}
ExecStart={command}

[Install]
WantedBy=multi-user.target
"""


@click.group(cls=Suggesting, invoke_without_command=True)
@output.format_option
@click.pass_context
def boot(ctx: click.Context, form: str) -> int:
    """Recover every fault of an earlier boot (what the boot unit calls)."""
    if ctx.invoked_subcommand:
        return 0
    with Recovery(state_folder()) as recovery:
        old = [r for r in recovery.unfinished() if r.boot_id != clock.boot_id()]
        records = [recovery.recover(record.uid) for record in old if record.end is not End.PERSON]
        return report_recovery(recovery, records, form)


def unit_text(recovery: Recovery) -> str:
    """The unit: it runs from the frozen copy, so that it works after the package was removed."""
    code = str(frozen.code_folder(recovery.store))
    words = frozen.command(code, "changes.at_boot", str(recovery.store.state))
    quoted = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words)
    return TEMPLATE.format(state=recovery.store.state, command=quoted)


@boot.command()
@click.option("--print", "show", is_flag=True, help="Print the unit instead of installing it.")
def install(show: bool) -> int:
    """Install and enable the systemd unit that recovers at boot."""
    with Recovery(state_folder()) as recovery:
        text = unit_text(recovery)
    if show:
        click.echo(text, nl=False)
        return 0
    if not Path("/run/systemd/system").exists() or os.geteuid() != 0:
        raise Unsupported(
            "the boot unit needs systemd and root",
            hint="print it with --print, or call `faultline boot` from your own boot script",
        )
    UNIT.write_text(text)
    for words in (["daemon-reload"], ["enable", UNIT.name]):
        subprocess.run(["/usr/bin/systemctl", *words], check=True)
    click.echo(f"installed and enabled {UNIT}")
    return 0
