"""The chart: its schema speaks of every value and of the server's flags, wrong values are refused, a pod lives as long as a drain."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.checks.chart import BAD_VALUES, VALUE_SETS, expected_complaint, render
from deploy.checks.tools import CHART, find_tool
from deploy.helm.settings_schema import OWN, SCHEMA, updated
from server.http import server
from server.keys.file import parse
from server.metrics.registry import Metrics
from server.redis.url import Login, RedisUrl
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


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_examples_let_pods_reach_an_external_redis(path):
    values = merged(VALUES, yaml.safe_load(path.read_text()))
    policy = values["networkPolicy"]
    assert not policy["enabled"] or values["histories"]["mode"] != "external" or policy["egressNamespaces"] or policy["egressCidrs"]


@needs_helm
@pytest.mark.parametrize("path", BAD_VALUES, ids=lambda path: path.stem)
def test_a_wrong_value_is_refused_by_name(path):
    refused = render(path)
    assert refused.returncode != 0
    assert expected_complaint(path) in refused.stderr


def objects(value_set: str, *options: str) -> list[dict[str, Any]]:
    if find_tool("helm") is None:
        pytest.skip("helm is not installed (deploy/checks/tools.sh installs it)")
    rendered: subprocess.CompletedProcess[str] = render(next(path for path in VALUE_SETS if path.stem == value_set), *options)
    assert rendered.returncode == 0, rendered.stderr
    return [part for part in yaml.safe_load_all(rendered.stdout) if part]


@pytest.fixture(scope="session")
def everything() -> list[dict[str, Any]]:
    return objects("everything")


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(part for part in objects if part["kind"] == kind)


def test_a_pod_may_take_as_long_as_its_drain(everything: list[dict[str, Any]]):
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(one(everything, "ConfigMap")["data"]["ATSPEED_GRACE_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= pause + grace + server.LAST_SECONDS + 5


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ((), Settings.model_fields["engine_start_seconds"].default + 60),
        (("settings.engine_start_seconds=3600.5",), 3600.5 + 60),
        (("probes.startup.periodSeconds=2",), Settings.model_fields["engine_start_seconds"].default + 60),
        (("settings.engine_start_seconds=60", "probes.startup.failureThreshold=1000"), 5000),
    ],
)
def test_a_replica_may_take_as_long_to_start_as_its_engine(options: tuple[str, ...], seconds: float):
    deployment = one(objects("default", *(f"--set-json={option}" for option in options)), "Deployment")
    probe = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert isinstance(probe["failureThreshold"], int)
    assert seconds <= probe["periodSeconds"] * probe["failureThreshold"] < seconds + 600


def test_pods_on_the_nodes_network_ask_the_clusters_dns():
    """Kubernetes would give them the node's resolver, which knows no Service."""
    on_the_node, usual = (one(objects("default", "--set", f"hostNetwork={there}"), "Deployment") for there in ("true", "false"))
    assert on_the_node["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "dnsPolicy" not in usual["spec"]["template"]["spec"]


def test_a_service_does_not_overwrite_the_servers_port(everything: list[dict[str, Any]]):
    """A Service called atspeed gives pods of its namespace ATSPEED_PORT=tcp://…, unless they decline."""
    assert one(everything, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_settings_map_starts_a_server(everything: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    for name, value in one(everything, "ConfigMap")["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.resolve()
    assert (settings.port, settings.draft.name, settings.log_format, settings.grace_seconds) == (8000, "draft", "json", 30)
    assert (settings.history_ttl_seconds, settings.catalog_max_items, settings.catalog_max_gib) == (2_592_000, 30_000_000, 0.25)


def test_the_chart_hands_out_alerts_and_dashboards(everything: list[dict[str, Any]]):
    rules = [rule for group in one(everything, "PrometheusRule")["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert all(rule["annotations"]["runbook_url"].startswith("https://") for rule in rules)
    dashboards = [part for part in everything if part["metadata"]["labels"].get("grafana_dashboard") == "1"]
    titles = {json.loads(text)["title"] for part in dashboards for text in part["data"].values()}
    assert titles == {"atspeed: on call", "atspeed: speculation", "atspeed: recommendations"}


def test_passwords_and_certificates_are_mounted_where_the_url_says():
    sentinel = objects("sentinel")
    url = RedisUrl.parse(one(sentinel, "ConfigMap")["data"]["ATSPEED_HISTORIES"])
    pod = one(sentinel, "Deployment")["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "histories"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "histories"]
    files = {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert url.login == Login("atspeed", None, f"{mount['mountPath']}/password")
    assert files[url.login.password_file] == ("redis", "redis-password")
    assert files[url.sentinel_login.password_file] == ("redis", "sentinel-password")
    assert {files.pop(path)[0] for path in url.tls_options.values()} == {"redis-tls"}
    assert len(files) == 2
    assert volume["projected"]["defaultMode"] == 0o440
    assert (url.wait_replicas, mount["readOnly"]) == (1, True)


def test_the_object_store_has_credentials_and_a_cache(everything: list[dict[str, Any]]):
    data = one(everything, "ConfigMap")["data"]
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert data["ATSPEED_CATALOGS"] == "s3://catalogs/shop"
    assert {"secretRef": {"name": "s3"}} in container["envFrom"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "catalogs"]
    assert Path(data["ATSPEED_CATALOG_CACHE"]).is_relative_to(mount["mountPath"])
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "catalogs"]
    assert volume["emptyDir"] == {"sizeLimit": "8Gi"}


def test_the_first_install_makes_keys_that_the_server_knows(everything: list[dict[str, Any]]):
    """Pods get the digests alone; the keys lie beside them in the Secret."""
    entries = {name: base64.b64decode(text) for name, text in one(everything, "Secret")["data"].items()}
    keys = parse(entries.pop("keys.json"), Path("keys.json"))
    made = {key.name: (key.sha256, [scope.value for scope in key.scopes]) for key in keys.keys}
    assert made == {name: (keys.digest(text).hex(), VALUES["keys"]["first"][name]) for name, text in entries.items()}
    assert {key.name for key in keys.keys} == {"clients", "operator"}
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
    (item,) = volume["secret"]["items"]
    assert (item["key"], "subPath" in mount) == ("keys.json", False)
    assert one(everything, "ConfigMap")["data"]["ATSPEED_KEYS"] == f"{mount['mountPath']}/{item['path']}"


@pytest.mark.parametrize("value_set", ["everything", "cluster"])
def test_scaling_goes_by_a_metric_of_the_server(value_set: str):
    kind = {"everything": "HorizontalPodAutoscaler", "cluster": "ScaledObject"}[value_set]
    text = json.dumps(one(objects(value_set), kind)["spec"])
    gauges = {family.name for family in Metrics().registry.collect() if family.type == "gauge"}
    named = set(re.findall(r"atspeed_\w+", text))
    assert named
    assert named <= gauges


@pytest.mark.parametrize(
    ("limits", "bytes_"),
    [
        ({"memory": "512Mi"}, 0.6 * 512 * 2**20),
        ({"memory": "1.5Gi", "cpu": 1}, 0.6 * 1.5 * 2**30),
        ({"memory": "700M"}, 0.6 * 700e6),
        ({"memory": 2_000_000_000}, 0.6 * 2e9),
        ({"memory": None}, None),
    ],
)
def test_the_bundled_redis_refuses_writes_before_it_is_killed_for_memory(limits: dict[str, Any], bytes_: float | None):
    rendered = objects("default", "--set-json", f"histories.bundled.resources.limits={json.dumps(limits)}")
    args = one(rendered, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--maxmemory-policy") + 1] == "noeviction"
    assert ([int(args[args.index("--maxmemory") + 1])] if "--maxmemory" in args else []) == ([] if bytes_ is None else [int(bytes_)])


def routes_of(objects: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The matches of each HTTPRoute, by its name."""
    routes = [part for part in objects if part["kind"] == "HTTPRoute"]
    return {part["metadata"]["name"]: [match for rule in part["spec"]["rules"] for match in rule["matches"]] for part in routes}


def test_the_gateway_does_not_hand_out_what_changes_the_catalog(everything: list[dict[str, Any]]):
    """It is for whoever runs the server, and a change has to reach every replica."""
    matches = [match for route in routes_of(everything).values() for match in route]
    users = {"/v1/recommendations", "/v1/recommendations:batch", "/v1/scores", "/v1/users"}
    assert {match["path"]["value"] for match in matches if "method" not in match} == users
    assert {match["method"] for match in matches if "method" in match} == {"GET"}
    assert {match["path"]["value"] for match in matches if "method" in match} == {"/v1/users", "/v1/catalog", "/v1/catalog/items"}


def test_the_gateway_sends_nothing_again_that_a_replica_may_have_stored(everything: list[dict[str, Any]]):
    """An event without an id would be there twice. Lists have no side effects, and are asked of another replica."""
    triggers = {
        part["spec"]["targetRefs"][0]["name"]: set(part["spec"]["retry"]["retryOn"]["triggers"])
        for part in everything
        if part["kind"] == "BackendTrafficPolicy"
    }
    routes = routes_of(everything)
    assert triggers.keys() == routes.keys()
    again = {
        (match["path"]["value"], match.get("method")) for name in routes if triggers[name] != {"connect-failure"} for match in routes[name]
    }
    assert {method for path, method in again if path.startswith("/v1/users")} == {"GET"}
    assert ("/v1/recommendations", None) in again


def test_the_alerts_find_the_server_whatever_it_is_called():
    called = objects("everything", "--set", "nameOverride=shop")
    (endpoint,) = one(called, "ServiceMonitor")["spec"]["endpoints"]
    (job,) = [relabeling["replacement"] for relabeling in endpoint["relabelings"] if relabeling["targetLabel"] == "job"]
    (rule,) = [
        rule
        for group in one(called, "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "AtspeedServerDown"
    ]
    assert re.fullmatch(re.search(r'job=~"([^"]+)"', rule["expr"])[1], job)
