"""How a command ends when it can't do what it was asked to."""

from typing import NoReturn

import typer


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Say why on standard error and end the command."""
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    raise typer.Exit(status)
