"""Tables on the terminal."""

from collections.abc import Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells; all columns but names are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in ("plan", "system") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width, and a table cut to 80 columns would lose its figures.
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
