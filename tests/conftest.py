"""What all tests share: one thread per process, and the paper's data where it is at hand."""

import os
import signal
from pathlib import Path

# Models this small gain nothing from a second thread, and threads of several test processes would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell has what it runs in the background ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from benchmarks.systems.shapes import SHAPES, make_catalog
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog

BEAUTY = Path(__file__).parents[2] / "shared" / "data" / "beauty"


@pytest.fixture(scope="session")
def beauty_dir() -> Path:
    """The paper's data; it may not be redistributed, so a plain checkout does not have it."""
    if not BEAUTY.is_dir():
        pytest.skip(f"the Beauty data is not at {BEAUTY}")
    return BEAUTY


@pytest.fixture(scope="session")
def paper_catalog() -> Catalog:
    """The paper's catalog, or where its data is not at hand a random one whose trie has the same level sizes."""
    return load_catalog(BEAUTY / "beauty.index.json") if BEAUTY.is_dir() else make_catalog(SHAPES["small"])


@pytest.fixture(scope="session")
def beauty(beauty_dir: Path) -> Catalog:
    return load_catalog(beauty_dir / "beauty.index.json")
