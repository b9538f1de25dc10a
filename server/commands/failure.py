"""How a command ends when it can't do what it was asked to."""

from typing import NoReturn

import typer


def fail(sentence: str) -> NoReturn:
    """Says why on standard error and ends the command with status 1."""
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    raise typer.Exit(1)
