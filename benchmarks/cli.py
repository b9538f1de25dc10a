"""The command `atspeed-bench`: the workshop, which measures what the three floors do.

Invariant: as in `server.commands.app`, nothing heavy is imported before a command runs.
"""

import typer

from benchmarks.commands import client, paper, prompt, quality, scaling
from benchmarks.endings import end_on_sigterm
from benchmarks.fuzz.command import fuzz
from benchmarks.gpu.command import PASSED_ON, gpu, kernel, truth
from benchmarks.load.command import builds, journey, load, standard, swaps, wide
from benchmarks.models.command import models
from benchmarks.replay.command import replay_app
from benchmarks.rivals.command import rivals
from benchmarks.soak.command import soak
from benchmarks.systems.alone import catalog, exactness, expansion, forwards, lossless, precision, steps, tolerance, widths
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
for command in (
    load,
    bench,
    rivals,
    standard,
    soak,
    fuzz,
    swaps,
    builds,
    wide,
    lossless,
    tolerance,
    models,
    precision,
    exactness,
    steps,
    widths,
    forwards,
    catalog,
    expansion,
    prompt,
    client,
    paper,
    quality,
    scaling,
    journey,
):
    app.command()(command)
for passed_on in (gpu, kernel, truth):
    app.command(context_settings=PASSED_ON)(passed_on)
app.add_typer(replay_app, name="replay")


def main() -> None:
    """Entry point of the `atspeed-bench` script."""
    end_on_sigterm()
    app()


if __name__ == "__main__":
    main()
