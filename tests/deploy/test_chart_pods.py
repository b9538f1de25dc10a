"""The chart's pods: what the server reads, how long a pod may take, how it is replaced and spread."""

from pathlib import Path
from typing import Any

import pytest

from server.http import server
from server.redis.url import Login, RedisUrl
from server.settings import Settings
from tests.deploy.rendered import environment, objects, one


def test_a_pod_may_take_as_long_as_its_drain(everything: list[dict[str, Any]]):
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(environment(everything)["ATSPEED_GRACE_SECONDS"])
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
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert seconds <= allowed < seconds + 600
    assert deployment["spec"]["progressDeadlineSeconds"] > allowed


def test_pods_on_the_nodes_network_ask_the_clusters_dns():
    """Kubernetes would give them the node's resolver, which knows no Service."""
    on_the_node, usual = (one(objects("default", "--set", f"hostNetwork={there}"), "Deployment") for there in ("true", "false"))
    assert on_the_node["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "dnsPolicy" not in usual["spec"]["template"]["spec"]


def test_a_service_does_not_overwrite_the_servers_port(everything: list[dict[str, Any]]):
    """A Service called atspeed gives pods of its namespace ATSPEED_PORT=tcp://…, unless they decline."""
    assert one(everything, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_pods_environment_starts_a_server(everything: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    for name, value in environment(everything).items():
        monkeypatch.setenv(name, value)
    settings = Settings.resolve()
    assert (settings.port, settings.draft.name, settings.log_format, settings.grace_seconds) == (8000, "draft", "json", 30)
    assert (settings.history_ttl_seconds, settings.catalog_max_items, settings.catalog_max_gib) == (2_592_000, 30_000_000, 0.25)


def test_a_variable_of_ones_own_takes_the_place_of_the_charts():
    """A name that stands twice is refused by clusters that apply on their side."""
    container = one(objects("default", "--set-json", 'extraEnv=[{"name":"ATSPEED_LOG_LEVEL","value":"debug"}]'), "Deployment")
    names = [each["name"] for each in container["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert environment([container])["ATSPEED_LOG_LEVEL"] == "debug"


ON_A_CLAIM = (
    'extraVolumes=[{"name":"catalogs","persistentVolumeClaim":{"claimName":"catalogs"}}]',
    'extraVolumeMounts=[{"name":"catalogs","mountPath":"/catalogs"}]',
)
ALONE = ("replicaCount=1", 'histories.mode="memory"')


@pytest.mark.parametrize(
    ("options", "strategy"),
    [
        ((), {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        (ALONE, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        ((*ALONE, *ON_A_CLAIM, 'settings.catalogs="/catalogs"'), {"type": "Recreate"}),
        ((*ALONE, *ON_A_CLAIM, 'settings.catalogs="s3://catalogs/shop"', 'settings.catalog_cache="/catalogs"'), {"type": "Recreate"}),
        (("replicaCount=1", 'settings.control="sqlite:////catalogs/control.db"'), {"type": "Recreate"}),
        ((*ON_A_CLAIM, 'settings.catalogs="/catalogs"'), {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        (("hostNetwork=true",), {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        (('strategy={"type":"Recreate"}',), {"type": "Recreate"}),
    ],
)
def test_pods_are_replaced_as_their_control_store_and_their_network_allow(options: tuple[str, ...], strategy: dict[str, Any]):
    """Two pods must not have one SQLite file open, and two on one node not one port."""
    deployment = one(objects("default", *(f"--set-json={option}" for option in options)), "Deployment")
    assert deployment["spec"]["strategy"] == strategy


def test_replicas_spread_over_nodes_once_where_these_are_the_zones():
    """A cluster refuses two constraints with one key."""
    deployment = one(objects("default", "--set", r"topologySpread.topologyKey=kubernetes\.io/hostname"), "Deployment")
    (constraint,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"


def test_no_pause_is_no_hook():
    """Kubernetes before 1.33 refuses one of 0 seconds."""
    deployment = one(objects("default", "--set", "preStopSeconds=0"), "Deployment")
    assert "lifecycle" not in deployment["spec"]["template"]["spec"]["containers"][0]


def test_passwords_and_certificates_are_mounted_where_the_url_says():
    sentinel = objects("sentinel")
    url = RedisUrl.parse(environment(sentinel)["ATSPEED_HISTORIES"])
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
    data = environment(everything)
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert data["ATSPEED_CATALOGS"] == "s3://catalogs/shop"
    assert {"secretRef": {"name": "s3"}} in container["envFrom"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "catalogs"]
    assert Path(data["ATSPEED_CATALOG_CACHE"]).is_relative_to(mount["mountPath"])
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "catalogs"]
    assert volume["emptyDir"] == {"sizeLimit": "8Gi"}
