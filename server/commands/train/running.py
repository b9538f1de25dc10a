"""Training runs as commands: what is said while the libraries load, their threads, and a run that can't start or is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from drafting.alignment.settings import TrainingMetrics
from drafting.errors import SetupError
from server.commands.terminal import fail
from server.engine.processors import train_with_threads
from server.engine_settings import MOST_THREADS

Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads.", min=1, max=MOST_THREADS, show_default="OMP_NUM_THREADS, else all processors that this process may use"
    ),
]


@contextmanager
def loading_libraries(threads: int | None) -> Iterator[None]:
    """Say that the training libraries are being loaded, which takes seconds, and what to install where they are missing."""
    typer.echo("Loading the training libraries …")
    try:
        train_with_threads(threads)
        yield
    except ImportError as error:
        fail(f"Training needs the extra 'train' ({error}): pip install 'atspeed-server[train]'.")


@contextmanager
def failing(continuation: str = "from the last checkpoint") -> Iterator[None]:
    """End the command with a sentence where the inputs are wrong or the user interrupts; `continuation` is where the next run goes on."""
    try:
        yield
    except SetupError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"Interrupted: the same command goes on {continuation}.")


def refuse_unserved(base: str) -> None:
    """Refuse a base model whose kind no server takes, before it is trained for hours; of its layers, only servers find out.

    Raises:
        HostError: it is so.
    """
    from drafting.alignment.bases import PRESETS
    from drafting.model_files import has_weights
    from verification.hosts.checkpoint import load_config

    if base not in PRESETS and has_weights(Path(base)):
        load_config(Path(base))


def took(metrics: TrainingMetrics) -> str:
    """How many steps a run has made, and in what time: of one that was interrupted, the steps since then and theirs."""
    since = metrics.steps - metrics.resumed_from_step
    return f"{metrics.steps:,} steps{f', the last {since:,}' if metrics.resumed_from_step else ''} in {metrics.seconds:.0f} s"
