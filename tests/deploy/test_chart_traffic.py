"""What the chart does with requests: who may ask, which replica, how often, and how many replicas there are for it."""

import json
import re
from typing import Any

import pytest

from server.metrics.registry import Metrics
from server.schemas.recommendations import MAX_TIMEOUT_MS
from tests.deploy.rendered import objects, one


@pytest.mark.parametrize("value_set", ["everything", "cluster"])
def test_scaling_goes_by_a_metric_of_the_server(value_set: str):
    kind = {"everything": "HorizontalPodAutoscaler", "cluster": "ScaledObject"}[value_set]
    text = json.dumps(one(objects(value_set), kind)["spec"])
    gauges = {family.name for family in Metrics().registry.collect() if family.type == "gauge"}
    named = set(re.findall(r"atspeed_\w+", text))
    assert named
    assert named <= gauges


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


def test_a_list_may_take_as_long_as_the_api_allows(everything: list[dict[str, Any]]):
    """Envoy's own bound is 15 s."""
    rules = [rule for part in everything if part["kind"] == "HTTPRoute" for rule in part["spec"]["rules"]]
    assert rules
    assert all(int(rule["timeouts"]["request"].removesuffix("s")) * 1000 > MAX_TIMEOUT_MS for rule in rules)


@pytest.mark.parametrize("idle_seconds", [75, 20, 0.5, 3600])
def test_the_gateway_lets_go_of_idle_connections_before_the_server_does(idle_seconds: float):
    rendered = objects("everything", "--set-json", f"settings.idle_seconds={idle_seconds}")
    idle = one(rendered, "BackendTrafficPolicy")["spec"]["timeout"]["http"]["connectionIdleTimeout"]
    assert 0 < int(idle.removesuffix("ms")) < idle_seconds * 1000


def test_what_a_replica_answers_does_not_take_it_out(everything: list[dict[str, Any]]):
    """A client that gives no time gets 504 each time. Only what Envoy meets itself counts, such as a connection that fails."""
    passive = one(everything, "BackendTrafficPolicy")["spec"]["healthCheck"]["passive"]
    assert passive["splitExternalLocalOriginErrors"] is True
    assert passive["consecutiveLocalOriginFailures"] > 0
    assert (passive["consecutive5XxErrors"], passive["consecutiveGatewayErrors"]) == (0, 0)


def services(objects: list[dict[str, Any]]) -> dict[str, tuple[str, list[str]]]:
    """Type and ports of the server's Services by name."""
    parts = [
        part for part in objects if part["kind"] == "Service" and part["metadata"]["labels"]["app.kubernetes.io/component"] == "server"
    ]
    return {part["metadata"]["name"]: (part["spec"]["type"], [port["name"] for port in part["spec"]["ports"]]) for part in parts}


def test_what_exposes_the_server_does_not_expose_its_operation():
    rendered = objects("everything", "--set", "service.type=LoadBalancer", "--set-json", 'networkPolicy.ingressCidrs=["0.0.0.0/0"]')
    assert services(rendered) == {"atspeed": ("LoadBalancer", ["http"]), "atspeed-operate": ("ClusterIP", ["operate"])}
    requests, operation = one(rendered, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in requests["ports"]] == ["http"]
    assert [port["port"] for port in operation["ports"]] == ["operate"]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert operation["from"] == [{"podSelector": {}}, monitoring]
    assert monitoring not in requests["from"]


def test_without_a_port_for_operations_there_is_one_service():
    rendered = objects("default")
    assert services(rendered) == {"atspeed": ("ClusterIP", ["http"])}
    assert len(one(rendered, "NetworkPolicy")["spec"]["ingress"]) == 1


def test_scaling_asks_for_the_series_of_the_service_that_is_scraped():
    """A ServiceMonitor gives them the label `service`. What can't be asked is no 0."""
    for port, service in (("0", "atspeed"), ("8002", "atspeed-operate")):
        rendered = objects("cluster", "--set", f"operatePort={port}")
        (trigger,) = one(rendered, "ScaledObject")["spec"]["triggers"]
        (endpoint,) = one(rendered, "ServiceMonitor")["spec"]["endpoints"]
        assert f'service="{service}"' in trigger["metadata"]["query"]
        assert endpoint["port"] in services(rendered)[service][1]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
