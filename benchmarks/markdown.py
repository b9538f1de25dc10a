"""Markdown tables, which every report of the workshop has."""

from collections.abc import Iterable, Sequence


def markdown_row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def markdown_head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [markdown_row(columns), "|" + "---|" * len(columns)]


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A whole table, without a newline at its end."""
    return "\n".join([*markdown_head(columns), *map(markdown_row, rows)])
