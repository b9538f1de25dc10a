"""The entry of the command `atspeed`."""

import os
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


@pytest.mark.parametrize(("terminal", "seconds"), [(True, None), (False, "10")])
def test_progress_bars_are_written_into_a_log_now_and_then(monkeypatch: pytest.MonkeyPatch, terminal: bool, seconds: str | None) -> None:
    # Set first, so that it is gone again behind the test.
    monkeypatch.setenv("TQDM_MININTERVAL", "")
    monkeypatch.delenv("TQDM_MININTERVAL")
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 2)
    monkeypatch.setattr("server.commands.app.app", lambda: None)
    main()
    assert os.environ.get("TQDM_MININTERVAL") == seconds
