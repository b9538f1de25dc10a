"""Objects of operators: the list of known fields is strict, the chart keeps to it, and a slip is found."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.checks import operators
from deploy.checks.chart import VALUE_SETS, render
from deploy.checks.tools import find_tool


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from nodes(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from nodes(part)


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, Any]]:
    """One object of each kind."""
    if find_tool("helm") is None:
        pytest.skip("helm is not installed (deploy/checks/tools.sh installs it)")
    objects = [part for path in VALUE_SETS for part in yaml.safe_load_all(render(path).stdout) if part]
    return {part["kind"]: part for part in objects if part["kind"] in operators.KINDS}


@pytest.mark.parametrize("kind", sorted(operators.KINDS))
def test_no_object_may_have_fields_that_are_not_listed(kind: str):
    objects = [part for part in nodes(operators.schema(kind)) if part.get("type") == "object"]
    assert objects
    assert all("additionalProperties" in part for part in objects)


def test_the_chart_makes_every_listed_kind_with_listed_fields_only(rendered: dict[str, dict[str, Any]]):
    assert set(rendered) == operators.KINDS
    assert {kind: operators.complaints(part) for kind, part in rendered.items()} == {kind: [] for kind in operators.KINDS}


@pytest.mark.parametrize("kind", sorted(operators.KINDS))
def test_any_field_that_is_misspelt_is_found(kind: str, rendered: dict[str, dict[str, Any]]):
    """Every field below `spec` in turn, but for the keys of labels and the like, which are free."""
    free = ("matchLabels", "labels", "annotations")

    def paths(part: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            if isinstance(part, dict):
                yield (*path, key)
            if key not in free:
                yield from paths(value, (*path, key))

    fields = list(paths(rendered[kind]["spec"], ("spec",)))
    assert fields
    for path in fields:
        slip = copy.deepcopy(rendered[kind])
        parent = slip
        for key in path[:-1]:
            parent = parent[key]
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        assert operators.complaints(slip), path


def test_a_complaint_names_the_field_and_its_place(rendered: dict[str, dict[str, Any]]):
    slip = copy.deepcopy(rendered["BackendTrafficPolicy"])
    slip["spec"]["retry"]["numRetrys"] = 2
    (complaint,) = operators.complaints(slip)
    assert complaint.startswith("spec.retry: ")
    assert "numRetrys" in complaint
