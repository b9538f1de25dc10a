"""Two replicas behind Envoy with the chart's routing rule: each user always reaches the same one; when one is killed its users move, the
others stay, and no request fails; what that does to the cache is printed.

Envoy's configuration is made of the chart's own HTTPRoute and BackendTrafficPolicy, as Envoy Gateway would make it: Maglev over the header,
retries on hosts that have not been tried, health checks.

Run:  python -m deploy.checks.routing
"""

import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import typer
import yaml

from benchmarks.endings import end_on_sigterm
from benchmarks.load.small_model import make_model, served
from benchmarks.server_process import Program, ServerProcess, free_port
from deploy.checks.chart import render
from deploy.checks.findings import Findings
from deploy.checks.processes import ask, wait_until
from deploy.checks.tools import ROOT, tool
from server.client import AtspeedClient
from server.client.origin import KEY_VARIABLE, bearer
from server.keys.file import add_key
from server.keys.key import Scope
from tests.services import RedisServer

USERS = [f"user-{number}" for number in range(200)]
ROUNDS = 3
CLIENTS = 4
EVENTS = 10
CLOSED = ("/v1/catalogs/rollback", "/v1/catalog/items", "/metrics")
FLAGS = ("--engine", "transformers", "--threads", "1", "--plan", "none")


def routed() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The specs of the chart's HTTPRoutes, the closest matches first, each with that of its BackendTrafficPolicy."""
    rendered = render(ROOT / "deploy/helm/values/everything.yaml").stdout
    objects = [part for part in yaml.safe_load_all(rendered) if part]
    policies = {part["spec"]["targetRefs"][0]["name"]: part["spec"] for part in objects if part["kind"] == "BackendTrafficPolicy"}
    return [(part["spec"], policies[part["metadata"]["name"]]) for part in objects if part["kind"] == "HTTPRoute"]


def matches(http_route: dict[str, Any]) -> list[dict[str, Any]]:
    """Envoy's matches of the chart's HTTPRoute."""
    found: list[dict[str, Any]] = []
    for match in (match for rule in http_route["rules"] for match in rule["matches"]):
        path = {"Exact": "path", "PathPrefix": "path_separated_prefix"}[match["path"]["type"]]
        method = [{"name": ":method", "string_match": {"exact": match["method"]}}] if "method" in match else []
        found.append({path: match["path"]["value"], "headers": method})
    return found


def envoy_routes(http_route: dict[str, Any], policy: dict[str, Any]) -> list[dict[str, Any]]:
    """Envoy's routes of an HTTPRoute under its policy."""
    retry = {
        "num_retries": policy["retry"]["numRetries"],
        "retry_on": ",".join(policy["retry"]["retryOn"]["triggers"]),
        "retriable_status_codes": policy["retry"]["retryOn"].get("httpStatusCodes", []),
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    header = policy["loadBalancer"]["consistentHash"]["header"]["name"]
    route = {
        "route": {
            "cluster": "atspeed",
            "timeout": http_route["rules"][0]["timeouts"]["request"],
            "hash_policy": [{"header": {"header_name": header}}],
            "retry_policy": retry,
        },
        # Only for this check, which must see who answered.
        "response_headers_to_add": [{"header": {"key": "x-replica", "value": "%UPSTREAM_REMOTE_ADDRESS%"}}],
    }
    return [{"match": match} | route for match in matches(http_route)]


def seconds(duration: str) -> str:
    """A duration of milliseconds as Envoy takes it."""
    return f"{int(duration.removesuffix('ms')) / 1000:g}s"


def envoy_config(routed: list[tuple[dict[str, Any], dict[str, Any]]], port: int, admin_port: int, backends: list[str]) -> dict[str, Any]:
    """A static configuration of Envoy that does what routes and their policies say, which balance and check alike."""
    policy = routed[0][1]
    consistent = policy["loadBalancer"]["consistentHash"]
    active = policy["healthCheck"]["active"]
    passive = policy["healthCheck"]["passive"]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [each for pair in routed for each in envoy_routes(*pair)]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "atspeed",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "MAGLEV",
        "maglev_lb_config": {"table_size": consistent["tableSize"]},
        "health_checks": [
            {
                "timeout": active["timeout"],
                "interval": active["interval"],
                "unhealthy_threshold": active["unhealthyThreshold"],
                "healthy_threshold": active["healthyThreshold"],
                "http_health_check": {"path": active["http"]["path"]},
            }
        ],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": seconds(policy["timeout"]["http"]["connectionIdleTimeout"])},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        # Envoy's own is 3, which a replica that dies under load exceeds; Envoy Gateway sets this.
        "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
        "outlier_detection": {
            "split_external_local_origin_errors": passive["splitExternalLocalOriginErrors"],
            "consecutive_local_origin_failure": passive["consecutiveLocalOriginFailures"],
            "consecutive_5xx": passive["consecutive5XxErrors"],
            "consecutive_gateway_failure": passive["consecutiveGatewayErrors"],
            # Envoy only counts these unless told otherwise; Envoy Gateway tells it wherever the policy names a number.
            "enforcing_consecutive_gateway_failure": 100,
            "interval": passive["interval"],
            "base_ejection_time": passive["baseEjectionTime"],
            "max_ejection_percent": passive["maxEjectionPercent"],
        },
        "load_assignment": {
            "cluster_name": "atspeed",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(backend)}} for backend in backends]}],
        },
    }
    listener = {
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": _address(f"127.0.0.1:{admin_port}")},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(host_and_port: str) -> dict[str, Any]:
    host, _, port = host_and_port.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


class Answer(NamedTuple):
    """A status, 0 for an answer that broke off; who gave it; and what it says of a failure."""

    status: int
    replica: str
    failure: str


def recommend(url: str, user: str) -> Answer:
    """A list for a user, by the key of the environment."""
    body = {"user_id": user, "k": 5, "timeout_ms": 10_000}
    try:
        answer = ask(f"{url}/v1/recommendations", body, {"X-User-Id": user} | bearer())
    except httpx.TransportError as error:
        return Answer(0, "nobody", repr(error))
    return Answer(answer.status_code, answer.headers.get("x-replica", "nobody"), "" if answer.is_success else answer.text[:200])


def ask_all(url: str) -> dict[str, Answer]:
    """One request of each user."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        return dict(zip(USERS, clients.map(lambda user: recommend(url, user), USERS), strict=True))


def hit_rate(servers: list[ServerProcess], counted: dict[str, float]) -> float:
    """Share of lists since the last call, over these servers, that found some of their prompt cached; `counted` keeps the counts."""
    found = {
        outcome: sum(server.metric("atspeed_cache_lookups_total", outcome=outcome) for server in servers) for outcome in ("hit", "miss")
    }
    hits, misses = (found[outcome] - counted.get(outcome, 0.0) for outcome in ("hit", "miss"))
    counted.update(found)
    return hits / (hits + misses)


def kill_under_load(url: str, victim: ServerProcess) -> list[Answer]:
    """Kill a replica while all users ask; their answers."""
    answers: list[Answer] = []

    def ask_on() -> None:
        for _ in range(2):
            answers.extend(ask_all(url).values())

    client = threading.Thread(target=ask_on)
    client.start()
    time.sleep(1.0)
    victim.process.kill()
    client.join()
    return answers


def check(url: str, servers: list[ServerProcess], findings: Findings) -> None:
    """Affinity, then the death of a replica."""
    with servers[0].api() as api:
        items = [line.item_id for line in api.items(limit=EVENTS).items]
    with AtspeedClient(url, trust_env=False) as client:
        client.append_histories((user, items) for user in USERS)
    counted: dict[str, float] = {}
    rounds = [ask_all(url)]
    cold = hit_rate(servers, counted)
    rounds += [ask_all(url) for _ in range(ROUNDS - 1)]
    homes = {user: {answers[user].replica for answers in rounds} for user in USERS}
    findings.check(
        all(answer.status == 200 for answers in rounds for answer in answers.values()), f"{ROUNDS * len(USERS)} requests were answered"
    )
    strays = sum(len(home) > 1 for home in homes.values())
    home_of = {user: next(iter(home)) for user, home in homes.items()}
    sizes = [sum(home == address for home in home_of.values()) for address in sorted(set(home_of.values()))]
    findings.check(strays == 0, f"{len(USERS) - strays} of {len(USERS)} users always reach the same replica; they divide as {sizes}")
    print(f"      cache hit rate: {cold:.0%} in the users' first round, {hit_rate(servers, counted):.0%} in their later ones")

    closed = {path: ask(f"{url}{path}", body={}).status_code for path in CLOSED}
    findings.check(set(closed.values()) == {404}, f"what changes the catalog is not routed: {closed}")
    keyless = ask(f"{url}/v1/recommendations", body={"user_id": USERS[0]}).status_code
    findings.check(keyless == 401, f"without a key Envoy passes on {keyless}")

    victim, survivor = servers
    counted.clear()
    hit_rate([survivor], counted)
    given = kill_under_load(url, victim)
    failed = [answer for answer in given if answer.status != 200]
    findings.check(
        len(given) == 2 * len(USERS) and not failed, f"a replica is killed under load: {len(failed)} of {len(given)} requests fail"
    )
    for answer in failed:
        print(f"      {answer.status} by {answer.replica}: {answer.failure}")
    moving = hit_rate([survivor], counted)
    after = ask_all(url)
    dead = victim.url.removeprefix("http://")
    moved = [user for user in USERS if home_of[user] == dead and after[user].replica != dead]
    stayed = [user for user in USERS if home_of[user] != dead and after[user].replica == home_of[user]]
    findings.check(
        len(moved) + len(stayed) == len(USERS), f"{len(moved)} users of the dead replica have moved, {len(stayed)} others have stayed"
    )
    print(f"      cache hit rate of the other replica: {moving:.0%} while they move, {hit_rate([survivor], counted):.0%} afterwards")


def main() -> None:
    """Check the routing of two replicas behind Envoy; takes no options (minutes)."""
    end_on_sigterm()
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis", "--appendonly", "no").start()
        port, admin_port = free_port(), free_port()
        # The client, and what is asked beside it, take it from there.
        os.environ[KEY_VARIABLE] = add_key(folder / "keys.json", "check", [Scope.RECOMMEND, Scope.EVENTS])
        flags = (*FLAGS, "--histories", redis.url, "--keys", str(folder / "keys.json"))
        try:
            with served(folder, *flags) as first, served(folder, *flags) as second:
                backends = [server.url.removeprefix("http://") for server in (first, second)]
                config = envoy_config(routed(), port, admin_port, backends)
                (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
                admin = f"http://127.0.0.1:{admin_port}"
                quiet = ("--log-level", "error", "--concurrency", "1")
                command = [tool("envoy"), "-c", str(folder / "envoy.yaml"), "--base-id", str(port), *quiet]
                with Program(command, folder / "envoy.log", f"{admin}/ready"):
                    healthy = wait_until(lambda: ask(f"{admin}/clusters").text.count("health_flags::healthy") == 2, 20)
                    findings.check(healthy is not None, "Envoy holds both replicas for healthy")
                    check(f"http://127.0.0.1:{port}", [first, second], findings)
        finally:
            redis.close()
    findings.end()


if __name__ == "__main__":
    typer.run(main)
