"""The check of vLLM's CUDA build finds what has moved, and takes a name that is still offered for there."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.gpu.wheel.__main__ import HOST_FILES, differing_files, report
from benchmarks.gpu.wheel.check import Fact, host_facts, problem
from benchmarks.gpu.wheel.facts import FACTS
from benchmarks.gpu.wheel.sources import Sources

MODULE = """
from vllm.base import Base as Origin, helper
from .stars import *

if True:
    LIMIT: int = 3

class Backend(Origin[int]):
    def __init__(self, size, scale: float = 1.0, *, name=None):
        self.cache = size
    def forward(self, layer, query):
        # a comment
        return  layer.run( query )
"""
BASE = """
class Base:
    options: dict
    def shape(cls, blocks): return (blocks, 2)

def helper(): ...
"""
HOLD = [
    Fact("vllm.backend:Backend.__init__", "", takes=("self", "size", "scale=1.0")),
    Fact("vllm.backend:Backend.forward", "", says=("layer.run(query)",)),
    Fact("vllm.backend:Backend.shape", "", takes=("cls", "blocks")),
    Fact("vllm.backend:Backend.options", ""),
    Fact("vllm.backend:Backend.cache", ""),
    Fact("vllm.backend:LIMIT", "", says=("3",)),
    Fact("vllm.backend:helper", ""),
    Fact("vllm.backend:Star.shine", ""),
    Fact("vllm:backend", ""),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").touch()
    (tmp_path / "vllm/backend.py").write_text(MODULE)
    (tmp_path / "vllm/base.py").write_text(BASE)
    (tmp_path / "vllm/stars.py").write_text("class Star:\n    def shine(self): ...\n")
    (tmp_path / "vllm.dist-info").mkdir()
    (tmp_path / "vllm.dist-info/METADATA").write_text("Name: vllm\nRequires-Dist: torch==2.13.0\nRequires-Dist: torchaudio\n")
    return tmp_path


def test_what_is_there_holds(tree: Path) -> None:
    assert [problem(Sources(tree), fact) for fact in HOLD] == [None] * len(HOLD)


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        ("backend", "def forward", "def run_forward", "vllm.backend has no Backend.forward"),
        ("backend", "size, scale: float = 1.0", "scale: float = 1.0, size=None", "Backend.__init__ takes (self, scale=1.0, size=None)"),
        ("backend", "scale: float = 1.0", "scale: float = 2.0", "Backend.__init__ takes (self, size, scale=2.0)"),
        ("backend", "layer.run( query )", "layer.run(query, 1)", "Backend.forward does not say `layer.run(query)`"),
        ("backend", "self.cache", "self.caches", "vllm.backend has no Backend.cache"),
        ("backend", "LIMIT: int = 3", "LIMIT: int = 4", "LIMIT does not say `3`"),
        ("base", "def shape(cls, blocks)", "def shape(cls, count)", "Backend.shape takes (cls, count)"),
        ("base", "def helper", "def helpers", "vllm.backend has no helper"),
    ],
)
def test_a_planted_change_is_found(tree: Path, file: str, old: str, new: str, found: str) -> None:
    path = tree / f"vllm/{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert [said for fact in HOLD if (said := problem(Sources(tree), fact))] == [found]


def test_a_module_that_is_gone_is_named(tree: Path) -> None:
    (tree / "vllm/backend.py").unlink()
    assert {problem(Sources(tree), fact) for fact in HOLD[:-1]} == {"there is no module vllm.backend"}


def test_what_the_host_imports_and_sets_is_read_from_its_sources(tmp_path: Path) -> None:
    host = tmp_path / "host.py"
    host.write_text("def start():\n    from vllm.a import B, C\n    arguments: dict = {'model': 1, 'dtype': 2}\nfrom other import D\n")
    assert [fact.name.partition(":")[2] for fact in host_facts([host])] == ["B", "C", "EngineArgs.model", "EngineArgs.dtype"]
    assert {path.name for path in HOST_FILES} >= {"vllm.py", "vllm_attention.py", "vllm_head.py", "vllm_int8.py", "vllm_start.py"}
    names = {fact.name for fact in host_facts(HOST_FILES)}
    assert {"vllm.forward_context:set_forward_context", "vllm.engine.arg_utils:EngineArgs.worker_extension_cls"} <= names


def test_the_report_names_what_a_newer_version_changes(tree: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    for path in [*tree.glob("vllm/*.py"), tree / "vllm.dist-info/METADATA"]:
        (newer / path.relative_to(tree)).parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text().replace("return (blocks, 2)", "return (blocks, 4)").replace("forward", "run").replace("2.13", "2.14")
        (newer / path.relative_to(tree)).write_text(text)
    text = report(HOLD, ["1.0", "1.1"], [Sources(tree), Sources(newer)])
    assert "| `vllm.backend:Backend.forward` |  | holds | vllm.backend has no Backend.forward |" in text
    assert "* 1.0 requires torch==2.13.0.\n* 1.1 requires torch==2.14.0." in text
    assert "`vllm.backend:Backend.forward`, `vllm.backend:Backend.shape`." in text


def test_folders_that_one_build_has_alone_are_named_once(tree: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "base.py").write_text(BASE + "#")
    (tree / "vllm/new/deep").mkdir(parents=True)
    for name in ("a", "b"):
        (tree / f"vllm/new/deep/{name}.py").touch()
    found = list(dict.fromkeys(differing_files(tree / "vllm", installed)))
    alone = [f"only in the CUDA build: {name}" for name in ("__init__.py", "backend.py")]
    assert found == [*alone, "different: base.py", "only in the CUDA build: new", "only in the CUDA build: stars.py"]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_all_holds_in_the_installed_build() -> None:
    spec = find_spec("vllm")
    assert spec
    assert spec.origin
    sources = Sources(Path(spec.origin).parents[1])
    problems = [said for fact in (*host_facts(HOST_FILES), *FACTS) if (said := problem(sources, fact))]
    assert not problems
