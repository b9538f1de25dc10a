"""The entry of the command `atspeed`."""

import subprocess
import sys
from pathlib import Path

import pytest

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
