"""Scripts that are run by themselves: asked for help, they explain themselves and begin nothing."""

import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    *("benchmarks/load/wrong_keys.py", "docker/prepare_demo.py", "requirements/lock.py"),
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("deploy/**/*.py") if 'if __name__ == "__main__":' in path.read_text()),
]


def begin(*_: object, **__: object) -> NoReturn:
    raise AssertionError("It has begun.")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_and_nothing_begins(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It built an image, wrote locks, or measured for minutes and wrote a file of the name `--help`."""
    path = str(ROOT / script)
    # Whatever it imports is there by now.
    runpy.run_path(path, run_name="imported")
    for what_starts in (subprocess.Popen, tempfile.TemporaryDirectory):
        monkeypatch.setattr(what_starts, "__init__", begin)
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    # Typer sets another one.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out
