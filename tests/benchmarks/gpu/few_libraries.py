"""Python as on a GPU machine that has PyTorch, transformers and little more: what else is installed here can't be imported.

Invariant: it is a list of what may be imported, not of what may not, so a library that a file begins to import is noticed whatever its
name.
"""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

LIBRARIES = ("torch", "triton", "transformers", "numpy", "tokenizers", "safetensors", "tqdm", "huggingface_hub")
OURS = {"atspeed-server"}


def only(*more: str) -> str:
    """Python code that lets nothing be imported but the standard library, this project, some libraries and what they require."""
    allowed = _required([*LIBRARIES, *more]) | OURS
    blocked = [name for name, sources in _installed().items() if not {_normal(source) for source in sources} & allowed]
    return f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))"


@cache
def _installed() -> dict[str, list[str]]:
    """Packages by name, with the distributions that they are of; as a new process sees them, before setuptools adds what it has inside."""
    code = "import json; from importlib.metadata import packages_distributions; print(json.dumps(packages_distributions()))"
    found: dict[str, list[str]] = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    return found


def _required(names: list[str]) -> set[str]:
    """The installed distributions among some and all that they require."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _normal(waiting.pop())
        if name not in found:
            try:
                lines = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            found.add(name)
            required = map(Requirement, lines)
            waiting += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
