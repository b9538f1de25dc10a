"""What all tests share: one thread per process, the paper's data where it is at hand, one small model and one real server with it."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

# Models this small gain nothing from a second thread, and threads of several test processes would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests start hundreds of processes, each of which would compile this project anew where the environment forbids to keep what is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell has what it runs in the background ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()

import pytest
from hypothesis import settings

# Before any other import of transformers: it keeps that import short.
import_module("verification.hosts.checkpoint")

from benchmarks.systems.shapes import SHAPES, make_catalog
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from tests.models import random_catalog, save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess
from tests.speculation import Speculation
from tests.turns import turn

# What is imported are a million objects that all stay, and a look through them takes a second. vLLM looks ten times for each model, and
# would thaw all of them when it closes one: here, what is frozen stays so.
thaw = gc.unfreeze
vars(gc).update(unfreeze=lambda: None)
# Modules that were there when the collector was last told to leave them alone.
frozen_modules = 0

settings.register_profile("sample", settings(), max_examples=25, deadline=None)
settings.register_profile("exhaustive", settings(), max_examples=150, deadline=None)
settings.load_profile("sample")

# The files that take longest begin first: workers take whole files, and none shall be left alone with one of them at the end.
LONGEST = (
    "server/offline/test_in_parts.py",
    "server/http/test_hang.py",
    "server/http/test_server.py",
    "server/scheduling/test_overload.py",
    "server/console/test_pages.py",
    "server/http/test_catalogs.py",
    "server/http/test_catalog_faults.py",
    "benchmarks/soak/test_run.py",
    "server/engine/test_vllm.py",
    "deploy/test_fleet_trial.py",
    "test_newcomer.py",
    "benchmarks/fuzz/test_run.py",
    "benchmarks/gpu/test_day.py",
    "verification/hosts/test_tree_kernel.py",
    "verification/hosts/test_vllm_on_gpu.py",
    "verification/engine/test_beam_search.py",
    "verification/hosts/test_vllm.py",
    "verification/hosts/test_adapter.py",
    "verification/verifiers/test_strict.py",
    "drafting/alignment/test_target.py",
    "server/demo/test_demo.py",
    "server/http/test_items.py",
    "server/commands/test_cli.py",
    "deploy/test_alerts.py",
)

BEAUTY = Path(__file__).parents[2] / "shared" / "data" / "beauty"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """Everything is imported: from here on there may be something to collect."""
    gc.enable()


def pytest_unconfigure() -> None:
    """At the end of the process, libraries complain about what the collector could not reach."""
    thaw()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run tests that are marked `alone` while no other worker runs any."""
    global frozen_modules
    if len(sys.modules) > frozen_modules + 300:
        gc.freeze()
        frozen_modules = len(sys.modules)
    with turn(exclusive=item.get_closest_marker("alone") is not None):
        return (yield)


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
    histories = f"sqlite:///{folder / 'histories.db'}"
    with ForkedServer(folder, *model_flags, "--histories", histories, "--timeout-ms", "20000", "--cold-start", "none") as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(running_server: ServerProcess) -> Iterator[ServerProcess]:
    """The shared server; a test that harms it has failed."""
    yield running_server
    assert running_server.wait_until_ready().recommend(history=["item-1"], k=1).status_code == 200
