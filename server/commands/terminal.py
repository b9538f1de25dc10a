"""What commands say on the terminal: tables, and why one has failed, or would."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

_UNBOUNDED = 100_000


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Say why on standard error and end the command."""
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    raise typer.Exit(status)


@contextmanager
def failing_on(*errors: type[Exception]) -> Iterator[None]:
    """End the command with the sentence of such an error."""
    try:
        yield
    except errors as error:
        fail(str(error))


def check_out(*paths: Path, overwrite: bool) -> None:
    """End the command if a file that it is to write is there, unless it may be replaced, or has no directory to lie in."""
    for path in paths:
        if path.exists() and not overwrite:
            fail(f"{path} already exists: choose another name, or pass --overwrite to replace it.")
        if not path.parent.is_dir():
            fail(f"There is no directory {path.parent} to write {path.name} to.")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str] = ("plan", "system")) -> None:
    """Print rows of cells, flush right except in the columns of names, which are `left`; missing cells at the end stay empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    for index, row in enumerate(rows, start=1):
        # Cells are texts and no markup: a token may be called [INST].
        table.add_row(*map(Text, row), end_section=index < len(rows) and rows[index][0] != row[0])
    # A pipe has no width, and a table cut to any would lose names or figures.
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(140, Console(width=_UNBOUNDED).measure(table).maximum))
    console.print(table)
