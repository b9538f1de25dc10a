"""Environments of rivals: a virtual environment with pinned packages and a repository at a pinned commit, both in the cache.

Invariant: nothing of a rival's code is kept in this repository or installed into the interpreter that runs ours; an environment that is
complete is not made again, and one that was left half made is.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.endings import BenchmarkError

# The CPU build of PyTorch is not on the default index everywhere; where it is missing there, PyTorch's own index has it.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class RivalError(BenchmarkError):
    """A rival that cannot take part; the message is a sentence."""


@dataclass(frozen=True)
class Repository:
    """Code that is on no package index.

    Attributes:
        commit: in full, 40 hex digits.
    """

    url: str
    commit: str


@dataclass(frozen=True)
class Environment:
    """What a rival needs beside this project; without packages it runs in the interpreter that runs ours.

    Attributes:
        packages: all that pip is asked for, pinned.
        removed: packages that come with these and break them.
        settings: environment variables of its processes.
    """

    packages: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    repository: Repository | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """An environment that is there: its interpreter and what its processes see."""

    python: Path
    variables: Mapping[str, str]


def prepare(name: str, environment: Environment, cache: Path, source: str | None, tell: Callable[[str], None]) -> Prepared:
    """Make what is missing of an environment.

    Args:
        source: of the repository, a URL or a local directory; by default its own.
        tell: told what takes time.

    Raises:
        RivalError: something can't be installed or fetched.
    """
    variables = dict(environment.settings)
    python = Path(sys.executable)
    if environment.packages:
        digest = hashlib.sha256("\0".join((*environment.packages, *environment.removed)).encode()).hexdigest()[:8]
        python = _installed(cache / "environments" / f"{name}-{digest}", name, environment, tell)
    if environment.repository is not None:
        folder = cache / "repositories" / f"{name}-{environment.repository.commit[:12]}"
        _cloned(folder, name, environment.repository, source or environment.repository.url, tell)
        paths = [str(folder), *([] if environment.packages else [os.environ.get("PYTHONPATH", "")])]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    elif environment.packages:
        variables["PYTHONPATH"] = ""
    return Prepared(python, variables)


def _installed(folder: Path, name: str, environment: Environment, tell: Callable[[str], None]) -> Path:
    """The interpreter of a virtual environment with the packages."""
    packages = environment.packages
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return python
    tell(f"Installing {name}: {', '.join(packages)} ...")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], name, "no virtual environment can be made")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = [package for package in packages if package.startswith("torch==")]
    if torch and subprocess.run([*pip, *torch], capture_output=True).returncode:
        _run([*pip, "--index-url", TORCH_INDEX, *torch], name, f"{torch[0]} can't be installed")
    _run([*pip, *packages], name, "its packages can't be installed")
    for package in environment.removed:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", package], name, f"{package} can't be removed")
    ready.touch()
    return python


def _cloned(folder: Path, name: str, repository: Repository, source: str, tell: Callable[[str], None]) -> None:
    """Put a repository at its commit into a folder, without its history's other files."""
    if folder.is_dir():
        return
    tell(f"Fetching {source} at {repository.commit[:12]} ...")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(["git", "clone", "--quiet", "--no-checkout", source, str(partial)], name, f"{source} can't be fetched")
    _run(["git", "-C", str(partial), "checkout", "--quiet", repository.commit], name, f"{source} has no commit {repository.commit}")
    partial.rename(folder)


def _run(command: Sequence[str], name: str, what: str) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"})
    except FileNotFoundError as error:
        raise RivalError(f"{name} is left out: {error.filename} is not installed.") from error
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise RivalError(f"{name} is left out: {what} ({lines[-1].strip() if lines else f'status {ended.returncode}'}).")
