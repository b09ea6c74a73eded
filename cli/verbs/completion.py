"""`berth completion`: what a shell needs to complete verbs, kinds, flags and their choices with Tab."""

import click
from click.shell_completion import get_completion_class

from cli import terminal

VARIABLE = "_BERTH_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    bash   eval "$(berth completion bash)"            in ~/.bashrc
    zsh    eval "$(berth completion zsh)"             in ~/.zshrc, after compinit
    fish   berth completion fish | source             in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    terminal.data(made(ctx.find_root().command, {}, "berth", VARIABLE).source() + "\n")
