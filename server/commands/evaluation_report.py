"""`ReportDirectory`: where `atspeed evaluate` writes its report, which is tried before hours are spent on it.

Invariant: `report.json` is written last, so where it is, the other files are there, of the same run.
"""

from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import typer

from server.commands.terminal import fail

if TYPE_CHECKING:
    from verification.evaluation.report import Report

_LAST = "report.json"


class ReportDirectory:
    """The directory of one report. Every method ends the command with a sentence where it can't do what it says.

    Attributes:
        unfinished: where networks are kept until the report is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unfinished = Path(f"{path.resolve()}.partial")

    def check(self, *, overwrite: bool) -> None:
        """Refuse what is no directory, and one that holds a report which may not be replaced."""
        if self._path.exists() and not self._path.is_dir():
            fail(f"{self._path} is not a directory, in which a report could lie: choose another one.")
        if (self._path / _LAST).exists() and not overwrite:
            fail(f"{self._path} already holds a report: choose another directory, or pass --overwrite to replace it.")

    def begin(self, *, networks: bool) -> None:
        """Make the directory, and try whether files can be written.

        Args:
            networks: whether some are kept until the report is there.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"The directory {self._path} for the report cannot be made: {error.strerror}.")
        kept = [self.unfinished if self.unfinished.is_dir() else self.unfinished.parent] if networks else []
        for place in (self._path, *kept):
            try:
                TemporaryFile(dir=place).close()
            except OSError as error:
                fail(f"No files can be written to {place}, as the report {self._path} needs: {error.strerror}.")

    def write(self, found: "Report") -> None:
        """Write the files of a report, forget the networks that were kept until then, and say which files there are."""
        from verification.evaluation.baselines.training import forget_networks

        try:
            names = self._write(found)
            forget_networks(self.unfinished)
        except OSError as error:
            fail(f"The report cannot be written to {self._path}: {error.strerror}.")
        typer.echo(f"Wrote {', '.join(names)} to {self._path}.")

    def _write(self, found: "Report") -> list[str]:
        """Write the files of a report, and return their names. Raises OSError."""
        from drafting.cache import whole_file
        from verification.evaluation.markdown import to_markdown
        from verification.evaluation.plots import write_plots

        (self._path / _LAST).unlink(missing_ok=True)
        (self._path / "report.md").write_text(to_markdown(found))
        plots = [path.name for path in write_plots(found, self._path)]
        with whole_file(self._path / _LAST) as building:
            building.write_bytes(found.encode())
        return [_LAST, "report.md", *plots]
