"""Options of commands that read interactions of any form: which column is which, what times are, how text is written.

Invariant: the commands share them, so a sentence about data that names a flag names one that the command has.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.commands.values import words

if TYPE_CHECKING:
    from drafting.preparation.settings import PrepareSettings

_COLUMN = "Column of the interactions"
_PANEL = "How interactions are read"


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_PANEL, **more)


def _column(what: str) -> Any:
    return _option(help=f"{_COLUMN} {what}", show_default="by its name")


@dataclass(frozen=True)
class InteractionOptions:
    """What was given of them.

    Attributes:
        columns: the column that was named for each role, by role.
        header: names of the columns of text without a header line.
    """

    columns: dict[str, str | None]
    keep: tuple[str, ...]
    time_unit: str
    time_format: str | None
    bad_lines: float
    header: tuple[str, ...]
    delimiter: str | None
    quotes: bool
    encoding: str

    def preparation(self, source: Path, out: Path, **more: Any) -> "PrepareSettings":
        """What is asked of a preparation with these options, and `more`.

        Raises:
            ImportError: the extra 'train' is not installed.
            InteractionError: a value makes no sense.
        """
        from drafting.preparation.settings import PrepareSettings
        from drafting.preparation.tables import TextOptions

        said: dict[str, Any] = {
            "columns": self.columns,
            "text": TextOptions(self.header, self.delimiter, self.quotes, self.encoding),
            "keep": self.keep,
            "time_unit": self.time_unit,
            "time_format": self.time_format,
            "bad_lines": self.bad_lines,
        }
        return PrepareSettings(source, out, **(said | more))


def interaction_options(
    user: Annotated[str | None, _column("with the users.")] = None,
    item: Annotated[str | None, _column("with the items.")] = None,
    time: Annotated[str | None, _column("with the times; or none.")] = None,
    rating: Annotated[str | None, _column("with a value, as a rating; or none.")] = None,
    kind: Annotated[str | None, _column("that says view, buy, …; or none.")] = None,
    keep: Annotated[list[str] | None, _option(help="A further column to keep, as an attribute; may be given several times.")] = None,
    time_unit: Annotated[
        str, _option(help="auto, seconds, milliseconds, microseconds, nanoseconds, yyyymmdd, or order for numbers that are no dates.")
    ] = "auto",
    time_format: Annotated[
        str | None, _option(help="Form of dates that are not ISO, such as %d/%m/%Y.", metavar="FORMAT", show_default="ISO")
    ] = None,
    bad_lines: Annotated[float, _option(help="Share of lines that may be unusable; they are left out and counted.")] = 0.01,
    columns: Annotated[str, _option(help="Names of the columns of interactions in text without a header line.", metavar="A,B,…")] = "",
    delimiter: Annotated[
        str | None, _option(help="What separates the columns of text.", show_default="what the first line has most of")
    ] = None,
    no_quotes: Annotated[bool, _option("--no-quotes", help='In text, " is a letter like any other.')] = False,
    encoding: Annotated[str, _option(help="Of text that is not UTF-8, such as latin-1.")] = "utf-8",
) -> InteractionOptions:
    """The options, each with its help, and what was given of them."""
    roles = {"user": user, "item": item, "time": time, "rating": rating, "kind": kind}
    header = tuple(words(columns))
    return InteractionOptions(roles, tuple(keep or ()), time_unit, time_format, bad_lines, header, delimiter, not no_quotes, encoding)
