"""`make gpu-wheel-check`: vLLM's CUDA build, downloaded and read without installing it.

What the host relies on must hold in the version that it is written for; of a newer one, a table says what would have to change. What an
earlier run has downloaded is taken as it is.
"""

import argparse
import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from filecmp import cmp
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.wheel.check import Fact, host_facts, problem, text_of
from benchmarks.gpu.wheel.facts import FACTS
from benchmarks.gpu.wheel.sources import Sources
from benchmarks.markdown import markdown_table, replace_part

ROOT = Path(__file__).parents[3]
HOST_FILES = sorted(ROOT.glob("verification/hosts/vllm*.py"))
PAGE = ROOT / "docs/gpu.md"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_31_x86_64", "manylinux_2_35_x86_64", "manylinux2014_x86_64")


def supported_version() -> str:
    """The version that the host is written for, without importing the host."""
    definition = Sources(ROOT).find("verification.hosts.vllm_attention", "SUPPORTED_VERSION")
    assert isinstance(definition, ast.Assign)
    return str(ast.literal_eval(definition.value))


def fetch(version: str, work: Path) -> Path:
    """The Python files of a CUDA build's wheel; `work` keeps them.

    Raises:
        CalledProcessError: the package index has no such wheel.
    """
    place = work / f"vllm-{version}"
    if not place.exists():
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
        subprocess.run([*command, *platforms, "--dest", str(work), f"vllm=={version}"], check=True)
        (wheel,) = work.glob(f"vllm-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place, [name for name in archive.namelist() if name.endswith((".py", "/METADATA"))])
        wheel.unlink()
    return place


def differing_files(cuda: Path, installed: Path) -> Iterator[str]:
    """The Python files of the CUDA build that an installed build lacks or has otherwise; new folders as a whole."""
    for path in sorted(cuda.rglob("*.py")):
        other = installed / path.relative_to(cuda)
        if not other.exists():
            gone = next(parent for parent in reversed((other, *other.parents)) if not parent.exists())
            yield f"only in the CUDA build: {gone.relative_to(installed)}"
        elif not cmp(path, other, shallow=False):
            yield f"different: {path.relative_to(cuda)}"


def requirements(tree: Path) -> str:
    """What a wheel requires of the packages that this project uses too."""
    (metadata,) = tree.glob("*.dist-info/METADATA")
    lines = (line.removeprefix("Requires-Dist: ") for line in metadata.read_text().splitlines())
    return ", ".join(line for line in lines if re.match(r"(torch|transformers|numpy|tokenizers|triton)\b(?!-)", line))


def report(facts: Sequence[Fact], versions: Sequence[str], trees: Sequence[Sources]) -> str:
    """The table of what does not hold, and what else differs between the versions."""
    rows = []
    for fact in facts:
        problems = [problem(tree, fact) for tree in trees]
        if any(problems):
            rows.append((f"`{fact.name}`", fact.use, *(found or "holds" for found in problems)))
    read = f"{len(facts)} facts, read in the wheels of vLLM {' and '.join(versions)} (CUDA, Linux x86-64)"
    table = markdown_table(("name", "what the host does with it", *versions), rows)
    lines = [f"{read}; what does not hold:", "", table] if rows else [f"{read}: all hold in all."]
    lines += ["", *(f"* {version} requires {requirements(tree.root)}." for version, tree in zip(versions, trees, strict=True))]
    changed = {fact.name for fact in facts if len({text_of(tree, fact) for tree in trees}) > 1}
    if changed:
        names = ", ".join(f"`{name}`" for name in sorted(changed))
        lines += ["", f"Of what the host relies on, {len(changed)} definitions are written otherwise in {versions[-1]}: {names}."]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the report; the status is 1 unless everything holds in the version of the host."""
    parser = argparse.ArgumentParser(prog="make gpu-wheel-check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", default=supported_version(), help="version of the host (default: %(default)s)")
    parser.add_argument("--newer", default="0.33.0", help="version to compare with (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/wheels", help="where sources are kept (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the report into docs/gpu.md")
    options = parser.parse_args(arguments)
    versions = [options.version, options.newer]
    trees = [Sources(fetch(version, options.work)) for version in versions]
    facts = [*host_facts(HOST_FILES), *FACTS]
    text = report(facts, versions, trees)
    if (installed := find_spec("vllm")) is not None and installed.submodule_search_locations:
        differing = dict.fromkeys(differing_files(trees[0].root / "vllm", Path(installed.submodule_search_locations[0])))
        text += "\n\nBeside the installed build of vLLM, the CUDA build has these Python files otherwise:\n\n"
        text += "\n".join(f"* {line}" for line in differing)
    print(text)
    if options.write:
        replace_part(PAGE, "wheel", text)
    return int(any(problem(trees[0], fact) for fact in facts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
