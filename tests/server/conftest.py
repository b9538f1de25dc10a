"""One small model, and one real server with it, for all tests of the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drafting.catalog.catalog import Catalog
from tests.models import random_catalog, save_random_model
from tests.server.server_process import ServerProcess


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
    with ServerProcess(folder, *model_flags, "--histories", histories, "--timeout-ms", "20000") as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(running_server: ServerProcess) -> Iterator[ServerProcess]:
    """The shared server; a test that harms it has failed."""
    yield running_server
    assert running_server.wait_until_ready().recommend(history=["item-1"], k=1).status_code == 200
