"""What `make test` installs: what can't be had is told and left out, and not tried again on the same day."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.checks.tools import ROOT

# Those that need no more than to be there.
THERE = ("redis-server", "chromium", "helm", "promtool")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout on a machine whose Python can't make an environment, and notes that it was asked to."""
    checks = Path("deploy", "checks")
    (tmp_path / checks).mkdir(parents=True)
    for name in ("tools.sh", "quick.lock"):
        shutil.copy(ROOT / checks / name, tmp_path / checks / name)
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "asked"
    programs = dict.fromkeys(THERE, "exit 0") | {"python3.11": f"echo once >> '{asked}'; echo trying; echo 'no index' >&2; exit 3"}
    for name, line in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def install(checkout: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": path}
    return subprocess.run([checkout / "deploy" / "checks" / "tools.sh", *flags], env=environment, capture_output=True, text=True)


def test_what_can_not_be_installed_is_told_and_tried_once_a_day(checkout: Path):
    first = install(checkout, "--quick")
    assert first.returncode == 0
    hadolint, compose = first.stderr.splitlines()
    assert hadolint == "hadolint could not be installed: no index"
    assert compose.startswith("compose could not be installed: "), "one that fails keeps no other from being tried"
    again = install(checkout, "--quick")
    assert (again.returncode, again.stderr) == (0, "")
    told = "could not be installed today: the tests that need it are skipped."
    assert again.stdout.splitlines() == [f"hadolint {told}", f"compose {told}"]
    assert (checkout / "asked").read_text().splitlines() == ["once"]
    (checkout / ".deploy" / "hadolint.failed").write_text("2000-01-01\n")
    assert "hadolint could not be installed: no index" in install(checkout, "--quick").stderr


def test_a_deployment_is_not_checked_without_its_tools(checkout: Path):
    install(checkout, "--quick")
    asked = install(checkout)
    assert (asked.returncode, asked.stderr) == (3, "hadolint could not be installed: no index\n")


def test_what_is_no_option_installs_nothing(checkout: Path):
    asked = install(checkout, "--help")
    assert (asked.returncode, asked.stderr) == (2, "usage: deploy/checks/tools.sh [--quick]\n")
    assert not (checkout / "asked").exists()
