"""The command `atspeed-bench`: the workshop, which measures what the three floors do.

Invariant: as in `server.cli`, nothing heavy is imported before a command runs.
"""

import sys

import typer

from benchmarks.endings import ProgramError, end_on_sigterm
from benchmarks.load.command import journey, load, soak, standard, swaps
from benchmarks.replay.command import replay_app
from benchmarks.systems.command import bench

app = typer.Typer(
    name="atspeed-bench",
    help="Measure atspeed-server: against other systems, under load, and on machines that are not at hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(bench)
app.command()(load)
app.command()(standard)
app.command()(soak)
app.command()(swaps)
app.command()(journey)
app.add_typer(replay_app, name="replay")


def main() -> None:
    """Entry point of the `atspeed-bench` script."""
    end_on_sigterm()
    try:
        app()
    except ProgramError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
