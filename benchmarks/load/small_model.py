"""The model that `standard`, `swaps` and the checks of the deployment serve: random, of the benchmarks' small shape."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server_process import ServerProcess


def make_model(folder: Path) -> None:
    """Write `model/` and `catalog.jsonl`."""
    from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint

    catalog = make_catalog(SHAPES["small"])
    catalog.save(folder / "catalog.jsonl")
    make_checkpoint(folder / "model", SHAPES["small"].target, catalog)


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[ServerProcess]:
    """A server of the model that `make_model` has put into the folder, ready, with a history store of its own.

    Raises:
        ProgramError: it does not get ready.
    """
    own = Path(tempfile.mkdtemp(dir=folder))
    options = (
        "--target",
        str(folder / "model"),
        "--catalog",
        str(folder / "catalog.jsonl"),
        "--histories",
        f"sqlite:///{own}/histories.db",
    )
    with ServerProcess(own, *options, *flags) as server:
        yield server.wait_until_ready()
