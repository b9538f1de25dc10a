"""The training libraries, which take seconds to import: a mistake in the flags need not wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from server.commands.failure import fail


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Says that the libraries are being loaded, and what to install where they are missing."""
    typer.echo("Loading the training libraries …")
    try:
        yield
    except ImportError as error:
        fail(f"Training needs the extra 'train' ({error}): pip install 'atspeed-server[train]'.")
