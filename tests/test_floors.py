"""Imports only go down: server, verification, drafting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER_ONLY = {"fastapi", "starlette", "redis", "prometheus_client", "uvicorn", "zmq", "opentelemetry", "server"}
FORBIDDEN = {"drafting": SERVER_ONLY | {"verification", "vllm"}, "verification": SERVER_ONLY, "server": {"vllm"}}
MAY_IMPORT_VLLM = {ROOT / "verification/hosts/vllm.py"}


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").split(".")[0])
    return modules


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_no_import_goes_up(floor: str) -> None:
    files = list((ROOT / floor).rglob("*.py"))
    assert files
    for path in files:
        forbidden = FORBIDDEN[floor] | (set() if path in MAY_IMPORT_VLLM else {"vllm"})
        assert not imported(path) & forbidden, path
