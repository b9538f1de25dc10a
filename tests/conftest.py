"""What all tests share: one thread per process, the order in which workers take them, and the fixtures of `fixtures.py`."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from xdist.scheduler import LoadFileScheduling

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

# Files that import vLLM, which takes longer than most files of tests: one worker does it, and has them all.
WITH_VLLM = (
    "verification/hosts/test_vllm_on_gpu.py",
    "verification/engine/test_beam_search.py",
    "verification/hosts/test_vllm.py",
    "verification/hosts/test_adapter.py",
    "verification/verifiers/test_strict.py",
    "verification/engine/test_widths.py",
    "verification/engine/test_normalise.py",
    "verification/engine/test_think.py",
    "verification/engine/test_not_finite.py",
    "verification/hosts/test_exact.py",
    "verification/hosts/test_quantization.py",
    "verification/hosts/test_self_check.py",
    "verification/hosts/test_checkpoint.py",
    "verification/hosts/test_vllm_int8.py",
    "verification/hosts/test_prompt_formats.py",
    "verification/hosts/test_head.py",
    "verification/test_recommender.py",
    "server/engine/test_main.py",
    "benchmarks/models/test_matrix.py",
)
# The files that take longest begin first: workers take whole files, and none shall be left alone with one of them at the end.
LONGEST = (
    "server/offline/test_in_parts.py",
    *WITH_VLLM,
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
    "drafting/alignment/test_target.py",
    "server/demo/test_demo.py",
    "server/http/test_items.py",
    "server/commands/test_cli.py",
    "deploy/test_alerts.py",
)


class ByFile(LoadFileScheduling):
    """Gives workers whole files, and those that import vLLM to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "vLLM" if file.removeprefix("tests/") in WITH_VLLM else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Take `ByFile` where pytest was told to give workers whole files."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    """Make fixtures known to processes that run tests, and not to one that hands them to workers, which so begin seconds earlier."""
    if hasattr(config, "workerinput") or not config.getoption("tx", None):
        config.pluginmanager.import_plugin("tests.fixtures")


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
