"""Whether a tree of vLLM's sources has what the vLLM host relies on.

Invariant: what the host imports and which options it starts vLLM with are read from the host's own sources, so that nothing that it begins
to use is left out here; what it relies on beyond names stands in `facts`.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.wheel.sources import Sources, parameters

OPTIONS = "vllm.engine.arg_utils:EngineArgs"


@dataclass(frozen=True)
class Fact:
    """Something that the host relies on.

    Attributes:
        name: `module:name` or `module:Class.member`; a module alone if it ends with a colon.
        use: what the host does with it.
        takes: the first parameters by position, with their defaults.
        says: pieces of code that it holds, as `ast.unparse` writes them.
    """

    name: str
    use: str
    takes: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


def host_facts(files: Sequence[Path]) -> Iterator[Fact]:
    """What the host's files import from vLLM, and the options that they start it with."""
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
                yield from (Fact(f"{node.module}:{alias.name}", f"imported by {path.name}") for alias in node.names)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict) and ast.unparse(node.target) == "arguments":
                keys = (ast.literal_eval(key) for key in node.value.keys if key is not None)
                yield from (Fact(f"{OPTIONS}.{key}", f"option of {path.name}") for key in keys)


def problem(sources: Sources, fact: Fact) -> str | None:
    """Why a fact does not hold, in words; None if it does."""
    module, _, name = fact.name.partition(":")
    if not sources.has_module(module):
        return f"there is no module {module}"
    if not name or sources.has_module(f"{module}.{name}"):
        return None
    found = sources.find(module, name)
    if found is None:
        return f"{module} has no {name}"
    if fact.takes:
        if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            return f"{name} is no function"
        taken = parameters(found)
        if tuple(taken[: len(fact.takes)]) != fact.takes:
            return f"{name} takes ({', '.join(taken)})"
    text = ast.unparse(found)
    missing = [piece for piece in fact.says if piece not in text]
    return f"{name} does not say `{missing[0]}`" if missing else None


def text_of(sources: Sources, fact: Fact) -> str:
    """The code that a fact is about, without its comments; empty if there is none."""
    module, _, name = fact.name.partition(":")
    found = sources.find(module, name)
    return "" if found is None else ast.unparse(found)
