"""What is forked from a process of threads is not held up by what those threads were doing."""

import importlib
import os
import select
import sys
import threading
from pathlib import Path

import pytest

from tests.server import forked_server

imported, go_on = threading.Event(), threading.Event()


def test_a_fork_imports_what_a_thread_was_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "slowly_imported.py").write_text(f"from {__name__} import imported, go_on\nimported.set()\nassert go_on.wait(60)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    thread = threading.Thread(target=importlib.import_module, args=("slowly_imported",))
    thread.start()
    assert imported.wait(60)
    child = os.fork()
    if child == 0:
        go_on.set()
        forked_server._become(lambda: importlib.import_module("slowly_imported"))
    go_on.set()
    thread.join()
    sys.modules.pop("slowly_imported")
    pidfd = os.pidfd_open(child)
    ended, _, _ = select.select([pidfd], [], [], 20)
    os.close(pidfd)
    if not ended:
        os.kill(child, 9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
