"""Writes one pinned lock per extra, all from one resolution, so that any set of extras can be installed together.

The locks are installed with `pip install --no-deps`: they leave out packages that vLLM asks for but a text-only model never imports, and
whose default builds need a GPU. No index is named; pip's own configuration says where packages come from.

Run:  python requirements/lock.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
# The CPU build of PyTorch may come from a link that pip is configured with; the GPU build is the index's own.
ENVIRONMENTS = {"cpu": dict(os.environ), "gpu": {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}}
# Each row is resolved as one set; the GPU build of vLLM excludes the CPU build.
# "serve" is no extra: what the base needs, for an image that runs models with transformers alone.
SETS = [("cpu", "serve", "console", "bench", "train", "ray", "dev"), ("gpu",)]
TORCH = "torch==2.13.0"


def resolve(requirements: list[str], environment: dict[str, str]) -> dict[str, dict]:
    """What pip would install, as package metadata by canonical name."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", report.name]
        subprocess.run([*command, *requirements], check=True, env=environment)
        installed = json.loads(Path(report.name).read_text())["install"]
    return {canonicalize_name(package["metadata"]["name"]): package["metadata"] for package in installed}


def closure(roots: list[str], packages: dict[str, dict]) -> set[str]:
    """The names of the roots' packages and of everything that they need."""
    wanted: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or name not in packages:
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) in wanted:
                continue
            wanted.add((name, extra))
            needs = [Requirement(text) for text in packages[name].get("requires_dist", [])]
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in wanted}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    for names in SETS:
        wanted = [requirement for name in names for requirement in extras.get(name, [])]
        packages = resolve([TORCH, *base, *wanted], ENVIRONMENTS[names[0]])
        for name in names:
            roots = [*extras.get(name, []), *(base if name in ("cpu", "serve", "gpu") else [])]
            pins = sorted(f"{package}=={packages[package]['version'].split('+')[0]}" for package in closure(roots, packages))
            (FOLDER / f"{name}.lock").write_text("\n".join(pins) + "\n")
            print(f"{name}.lock: {len(pins)} packages")


if __name__ == "__main__":
    main()
