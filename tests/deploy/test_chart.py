"""The chart: its schema speaks of every value and of the server's flags, wrong values are refused, a pod lives as long as a drain."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.checks.chart import BAD_VALUES, VALUE_SETS, expected_complaint, render
from deploy.checks.tools import CHART, find_tool
from deploy.helm.settings_schema import OWN, SCHEMA, updated
from server import serving
from server.settings import Settings

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
needs_helm = pytest.mark.skipif(find_tool("helm") is None, reason="helm is not installed (deploy/checks/tools.sh installs it)")


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text())


def merged(values: dict, more: dict) -> dict:
    """Values as Helm merges them: maps by key, all else is replaced."""
    both = {key: merged(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(values[key], dict)}
    return values | more | both


def described(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, bool]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", bool(part.get("description"))
        yield from described(part, f"{path}.{name}")


def test_the_chart_takes_exactly_the_servers_settings():
    text = SCHEMA.read_text()
    assert updated(text) == text, "run python deploy/helm/settings_schema.py"
    assert set(json.loads(text)["properties"]["settings"]["properties"]) == set(Settings.model_fields) - OWN


def test_every_value_has_a_description(schema: dict[str, Any]):
    assert [path for path, has_one in described(schema) if not has_one] == []


def test_the_schema_knows_every_value(schema: dict[str, Any]):
    def check(values: dict, part: dict, path: str) -> None:
        assert part.get("additionalProperties") is not None, path
        for name, value in values.items():
            assert name in part["properties"], f"{path}.{name}"
            if isinstance(value, dict) and "properties" in part["properties"][name]:
                check(value, part["properties"][name], f"{path}.{name}")

    check(VALUES, schema, "")


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_the_value_sets_fit_the_schema(path, schema: dict[str, Any]):
    jsonschema.validate(merged(VALUES, yaml.safe_load(path.read_text())), schema)


@needs_helm
@pytest.mark.parametrize("path", BAD_VALUES, ids=lambda path: path.stem)
def test_a_wrong_value_is_refused_by_name(path):
    refused = render(path)
    assert refused.returncode != 0
    assert expected_complaint(path) in refused.stderr


@pytest.fixture(scope="session")
def everything() -> list[dict[str, Any]]:
    if find_tool("helm") is None:
        pytest.skip("helm is not installed (deploy/checks/tools.sh installs it)")
    rendered: subprocess.CompletedProcess[str] = render(next(path for path in VALUE_SETS if path.stem == "everything"))
    assert rendered.returncode == 0, rendered.stderr
    return [part for part in yaml.safe_load_all(rendered.stdout) if part]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(part for part in objects if part["kind"] == kind)


def test_a_pod_may_take_as_long_as_its_drain(everything: list[dict[str, Any]]):
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(one(everything, "ConfigMap")["data"]["ATSPEED_GRACE_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= pause + grace + serving.LAST_SECONDS + 5


def test_a_service_does_not_overwrite_the_servers_port(everything: list[dict[str, Any]]):
    """A Service called atspeed gives pods of its namespace ATSPEED_PORT=tcp://…, unless they decline."""
    assert one(everything, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_settings_map_starts_a_server(everything: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    for name, value in one(everything, "ConfigMap")["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.resolve()
    assert (settings.port, settings.draft.name, settings.log_format, settings.grace_seconds) == (8000, "draft", "json", 30)


def test_the_chart_hands_out_alerts_and_dashboards(everything: list[dict[str, Any]]):
    rules = [rule for group in one(everything, "PrometheusRule")["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert all(rule["annotations"]["runbook_url"].startswith("https://") for rule in rules)
    dashboards = [part for part in everything if part["metadata"]["labels"].get("grafana_dashboard") == "1"]
    titles = {json.loads(text)["title"] for part in dashboards for text in part["data"].values()}
    assert titles == {"atspeed: on call", "atspeed: speculation", "atspeed: recommendations"}
