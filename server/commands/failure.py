"""The end of a command that fails: a message and an exit status."""

from typing import NoReturn

import typer


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Say why on standard error and end the command."""
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    raise typer.Exit(status)
