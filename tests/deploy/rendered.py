"""What the chart renders with a value set, by kind."""

import subprocess
from typing import Any

import pytest
import yaml

from deploy.checks.chart import VALUE_SETS, render
from deploy.checks.tools import find_tool


def objects(value_set: str, *options: str) -> list[dict[str, Any]]:
    if find_tool("helm") is None:
        pytest.skip("helm is not installed (deploy/checks/tools.sh installs it)")
    rendered: subprocess.CompletedProcess[str] = render(next(path for path in VALUE_SETS if path.stem == value_set), *options)
    assert rendered.returncode == 0, rendered.stderr
    return [part for part in yaml.safe_load_all(rendered.stdout) if part]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(part for part in objects if part["kind"] == kind)


def environment(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The server's variables that stand in the pod's template."""
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}
