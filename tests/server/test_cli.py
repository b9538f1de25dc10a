"""The entry of the command `atspeed`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.cli import main

ROOT = Path(__file__).parents[2]
# Ctrl-C while the named module is imported.
INTERRUPTED = """
import sys

class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting)
from server.cli import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "server.commands.evaluate"])
def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(module=module)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def forget(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Take variables out of the environment; what is set in their place is gone behind the test."""
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_sigterm_ends_the_first_process_of_a_container_before_a_server_awaits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a large catalog; unheard, it would end in a kill when the pod's grace period is over."""
    forget(monkeypatch, "TQDM_MININTERVAL", "OPENBLAS_NUM_THREADS")
    before = signal.getsignal(signal.SIGTERM)

    def load() -> None:
        # Else it would end the tests.
        assert signal.getsignal(signal.SIGTERM) is not before
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr("server.commands.app.app", load)
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 143


@pytest.mark.parametrize(("terminal", "seconds"), [(True, None), (False, "10")])
def test_progress_bars_are_written_into_a_log_now_and_then(monkeypatch: pytest.MonkeyPatch, terminal: bool, seconds: str | None) -> None:
    forget(monkeypatch, "TQDM_MININTERVAL", "OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 2)
    monkeypatch.setattr("server.commands.app.app", lambda: None)
    main()
    assert os.environ.get("TQDM_MININTERVAL") == seconds


@pytest.mark.parametrize(("environment", "threads"), [({}, "3"), ({"OMP_NUM_THREADS": "1"}, None), ({"OPENBLAS_NUM_THREADS": "2"}, "2")])
def test_linear_algebra_keeps_to_the_quota_of_the_container(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], threads: str | None
) -> None:
    """EASE on 64 processors with a quota of three would be stopped by the kernel most of the time."""
    forget(monkeypatch, "TQDM_MININTERVAL", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("server.engine.processors.usable_processors", lambda: 3)
    monkeypatch.setattr("server.commands.app.app", lambda: None)
    main()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads
