"""With which version a server begins, from what servers before it have noted."""

from pathlib import Path

import pytest

from drafting.catalog.artefact import save_artefact
from server.catalogs.files import VersionFiles
from server.catalogs.journal import HISTORY_FILE, Journal
from server.catalogs.start import first_catalog
from server.catalogs.store import CatalogStore, ServedCatalog
from server.engine.client import EngineClient
from server.engine_settings import EngineOptions
from server.metrics.registry import Metrics
from tests.models import random_catalog

START, OTHER, NEWER = (random_catalog(items=20, seed=seed) for seed in (1, 2, 3))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_artefact(OTHER, tmp_path / "v2.catalog")
    return tmp_path


def store(directory: Path, served: ServedCatalog) -> CatalogStore:
    return CatalogStore(served, EngineClient(EngineOptions(target="", catalog=""), "", Metrics(), max_pending=1), VersionFiles(directory))


def note(directory: Path, *entries: tuple[str, str]) -> None:
    lines = [f'{{"version": "{version}", "by": "{by}", "at": 1.0}}\n' for version, by in entries]
    (directory / HISTORY_FILE).write_text("".join(lines))


def begin(directory: Path | None) -> tuple[str, str]:
    first = first_catalog(START, Path("start.jsonl"), directory)
    return first.served.name, first.by


def test_a_server_begins_with_its_catalog_and_goes_on_with_what_was_activated(directory: Path) -> None:
    assert begin(None) == begin(directory) == (START.version, "start")
    note(directory, (START.version, "start"), ("v2", "somebody"))
    assert begin(directory) == ("v2", "restart")
    assert begin(None) == (START.version, "start")


def test_another_catalog_to_start_with_wins(directory: Path) -> None:
    note(directory, (NEWER.version, "start"), ("v2", "somebody"))
    assert begin(directory) == (START.version, "start")


def test_a_version_that_is_gone_is_left_for_the_one_before_and_that_is_said(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    note(directory, (START.version, "start"), ("removed", "somebody"), ("v3", "somebody"))
    first = first_catalog(START, Path("start.jsonl"), directory)
    assert (first.served.name, first.by, first.left) == (START.version, "recovery", "v3")
    assert [record.getMessage() for record in caplog.records] == ["the version v3 can't be served any more: its file is gone"]
    note(directory, (START.version, "start"), ("v2", "somebody"), ("v3", "somebody"))
    assert begin(directory) == ("v2", "recovery")


def test_the_history_outlives_the_server(directory: Path) -> None:
    first = store(directory, first_catalog(START, Path("start.jsonl"), directory).served)
    first.started("start")
    assert first.versions() == ["v2", START.version]
    with (directory / HISTORY_FILE).open("a") as file:
        file.write('\n{"version": "cut o')
    second = store(directory, first_catalog(START, Path("start.jsonl"), directory).served)
    second.started("restart")
    noted = [(entry.version, entry.by) for entry in Journal(directory).record.history]
    assert noted == [(entry.version, entry.by) for entry in second.history] == [(START.version, "start"), (START.version, "restart")]
