"""Markdown tables, which every report of the workshop has."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def markdown_head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [markdown_row(columns), "|" + "---|" * len(columns)]


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A whole table, without a newline at its end."""
    return "\n".join([*markdown_head(columns), *map(markdown_row, rows)])


def replace_part(page: Path, name: str, text: str) -> None:
    """Put a text between the lines `<!-- name -->` and `<!-- end of name -->` of a page."""
    before, start, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    assert end, f"{page} has no part {name!r}"
    page.write_text(f"{before}{start}\n{text}\n\n{end}{after}")
