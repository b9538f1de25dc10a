"""How many threads an engine gets by default, in and out of a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drafting.catalog.catalog import Catalog
from server.engine.loading import load_recommender
from server.engine.processors import usable_processors
from server.engine_settings import EngineOptions
from verification.recommender import Recommender

RUNS_ON = 8


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(RUNS_ON)))


@pytest.mark.parametrize(
    ("cpu_max", "usable"),
    [("max 100000", RUNS_ON), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", RUNS_ON)],
)
def test_a_quota_bounds_the_processors(tmp_path, cpu_max: str, usable: int):
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    assert usable_processors(tmp_path) == usable


@pytest.mark.parametrize(("quota", "usable"), [("-1", RUNS_ON), ("300000", 3)])
def test_the_kernels_first_version_of_limits(tmp_path, quota: str, usable: int):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_processors(tmp_path) == usable


def test_without_limits_it_is_what_the_process_may_run_on(tmp_path):
    assert usable_processors(tmp_path) == RUNS_ON


@pytest.mark.parametrize(("told", "threads"), [(None, RUNS_ON), (2, 2)])
def test_an_engine_keeps_all_of_them_busy_unless_told(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, told: int | None, threads: int):
    given = {}
    monkeypatch.setattr(Recommender, "load", lambda *arguments, **options: given.update(options))
    load_recommender(EngineOptions(target=Path("models/x"), catalog=Path("c.jsonl"), threads=told), catalog)
    assert given["threads"] == threads


@pytest.mark.parametrize(
    ("told", "environment", "threads", "policy"),
    [
        pytest.param("3", {}, 3, "PASSIVE", marks=pytest.mark.exhaustive),
        ("None", {}, usable_processors(), "PASSIVE"),
        pytest.param("None", {"OMP_NUM_THREADS": "1"}, 1, "PASSIVE", marks=pytest.mark.exhaustive),
        ("2", {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"}, 2, "ACTIVE"),
    ],
)
def test_threads_that_train_sleep_while_they_wait(told: str, environment: dict[str, str], threads: int, policy: str):
    """OpenMP's own words: it displays what it has read."""
    code = f"from server.engine.processors import train_with_threads as t; t({told}); import torch; print(torch.get_num_threads())"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    started = [sys.executable, "-c", code]
    done = subprocess.run(started, env=kept | {"OMP_DISPLAY_ENV": "true"} | environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(threads)]
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
