"""Shell completion, by click's own generator."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from faultline.cli.naming import COMPLETION


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script for SHELL.

    For bash put this in ~/.bashrc: eval "$(faultline completion bash)"
    For zsh put the same with zsh in ~/.zshrc; for fish save what is printed as
    ~/.config/fish/completions/faultline.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "faultline", COMPLETION).source())
    return 0
