"""Fixtures of all rooms: the paper's data where it is at hand, one small model and one real server with it.

They are no part of `conftest.py` because the process that hands tests to workers needs none of the libraries imported here.
"""

import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

# Before any other import of transformers: it keeps that import short.
import_module("verification.hosts.checkpoint")

from benchmarks.systems.shapes import SHAPES, make_catalog
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from tests.models import random_catalog, save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess
from tests.speculation import Speculation

BEAUTY = Path(__file__).parents[2] / "shared" / "data" / "beauty"


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that runs in a test's process sends its logs to the test's standard error, which is closed after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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


@pytest.fixture(scope="session")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    """A target and a draft, which no test leaves with a slot in use."""
    return Speculation(tmp_path_factory.mktemp("speculation"))


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return random_catalog()


@pytest.fixture(scope="session")
def catalog_file(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "catalog.jsonl"
    catalog.save(path)
    return path


@pytest.fixture(scope="session")
def model_dir(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("models") / "tiny", catalog, hidden=32, layers=1, max_items=5)


@pytest.fixture(scope="session")
def model_flags(model_dir: Path, catalog_file: Path) -> list[str]:
    return ["--target", str(model_dir), "--catalog", str(catalog_file)]


@pytest.fixture(scope="session")
def running_server(model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    histories = ("--histories", f"sqlite:///{folder / 'histories.db'}", "--history-timeout-ms", "10000")
    flags = (*histories, "--timeout-ms", "20000", "--cold-start", "none", "--plan", "auto")
    with ForkedServer(folder, *model_flags, *flags) as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(running_server: ServerProcess) -> Iterator[ServerProcess]:
    """The shared server; a test that harms it has failed."""
    yield running_server
    assert running_server.wait_until_ready().recommend(history=["item-1"], k=1).status_code == 200
