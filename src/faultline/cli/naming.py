"""Groups of commands that answer a wrong name with the nearest right one."""

from __future__ import annotations

import click

from faultline.errors import UnknownName, nearest

COMPLETION = "_FAULTLINE_COMPLETE"  # the variable by which a shell asks for completions


class Suggesting(click.Group):
    """A group that says which of its commands may have been meant."""

    noun = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            raise UnknownName(
                f"{ctx.command_path}: there is no {self.noun} {name!r}", hint=nearest(name, known)
            )
        return super().resolve_command(ctx, args)
