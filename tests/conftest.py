"""What all tests share: one thread per process, the order in which workers take them, and the fixtures of `fixtures.py`."""

import gc
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
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
from xdist.workermanage import WorkerController

from tests.turns import turn

# What is imported are a million objects that all stay, and a look through them takes a second. vLLM looks ten times for each model, and
# would thaw all of them when it closes one: here, what is frozen stays so.
thaw = gc.unfreeze
vars(gc).update(unfreeze=lambda: None)
# The least seconds of a unit whose end is told.
TOLD_SECONDS = 10.0
# Modules that were there when the collector was last told to leave them alone.
frozen_modules = 0
# Whether vLLM was imported when the current test began.
had_vllm = False

settings.register_profile("sample", settings(), max_examples=25, deadline=None)
settings.register_profile("exhaustive", settings(), max_examples=150, deadline=None)
settings.load_profile("sample")

# vLLM takes longer to import than most files take: the tests of these rooms that name it have one worker, which does it for all.
WITH_VLLM = ("tests/verification/", "tests/benchmarks/models/", "tests/server/engine/test_main.py")
VLLM = "vLLM"
# The files that take longest begin first: workers take whole files, and none shall be left alone with one of them at the end.
LONGEST = (
    "server/offline/test_in_parts.py",
    VLLM,
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


def unit(nodeid: str) -> str:
    """What one worker runs without a break: the tests that import vLLM, or a file's others."""
    return VLLM if "vllm" in nodeid and nodeid.startswith(WITH_VLLM) else nodeid.partition("::")[0]


class ByFile(LoadFileScheduling):
    """Gives workers whole units, and says when each of the longer ones ends."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._seconds: Counter[str] = Counter()
        self._begun = time.monotonic()

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        ended = unit(self.registered_collections[node][item_index])
        work = self.assigned_work[node]
        super().mark_test_complete(node, item_index, duration)
        self._seconds[ended] += duration
        if self._seconds[ended] >= TOLD_SECONDS and all(work[ended].values()):
            passed = time.monotonic() - self._begun
            # Prints are captured.
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f"\n{passed:4.0f} s: {node.gateway.id} has ended {ended}, {self._seconds[ended]:.0f} s")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Take `ByFile` where pytest was told to give workers whole files."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    """Make fixtures known to processes that run tests, and not to one that hands them to workers, which so begin seconds earlier."""
    if hasattr(config, "workerinput") or not config.getoption("tx", None):
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {name if name == VLLM else f"tests/{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(unit(item.nodeid), len(rank)))


def pytest_collection_finish() -> None:
    """Everything is imported: from here on there may be something to collect."""
    gc.enable()


def pytest_unconfigure() -> None:
    """At the end of the process, libraries complain about what the collector could not reach."""
    thaw()


def is_vllm_imported() -> bool:
    """Whether vLLM itself is there: what stands in for it has no file."""
    return "vllm" in sys.modules and vars(sys.modules["vllm"]).get("__file__") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that imports vLLM for itself alone."""
    result = yield
    assert unit(item.nodeid) == VLLM or had_vllm or not is_vllm_imported(), "what imports vLLM has it in its name"
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run tests that are marked `alone` while no other worker runs any."""
    global frozen_modules, had_vllm
    had_vllm = is_vllm_imported()
    if len(sys.modules) > frozen_modules + 300:
        gc.freeze()
        frozen_modules = len(sys.modules)
    with turn(exclusive=item.get_closest_marker("alone") is not None):
        result = yield
    have_one_thread()
    return result


def have_one_thread() -> None:
    """What a command of a test has set is the process's: all later tests of a worker would wait for threads of the others."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
