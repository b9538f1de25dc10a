"""A short trial of `make fleet-check`: three servers on a Redis with Sentinels, changed while they are killed and stopped.

Instead of Envoy, which the tests do not install, the client's transport sends each request to a server by chance.
"""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import free_port
from deploy.checks.routing import envoy_config
from deploy.fleet import judge
from deploy.fleet.replicas import ANSWER_SECONDS, POLICY, ROUTE, Fleet, Replica
from deploy.fleet.trial import Ground, run_trial
from tests.server.forked_server import ForkedServer
from tests.services import REDIS_BINARY, REDIS_MISSING


class ForkedReplica(Replica, ForkedServer):
    """A replica that is ready in a fraction of its time."""


class ByChance(httpx.BaseTransport):
    """Sends a request to one of the servers, by what its `X-User-Id` hashes to, and notes who answered, as Envoy does."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses, self._transport = addresses, httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        address = self._addresses[zlib.crc32(request.headers.get("X-User-Id", "").encode()) % len(self._addresses)]
        host, port = address.split(":")
        request.url = request.url.copy_with(host=host, port=int(port))
        response = self._transport.handle_request(request)
        response.headers["x-replica"] = address
        return response

    def close(self) -> None:
        self._transport.close()


class ForkedFleet(Fleet):
    """Forked servers, without a gateway."""

    def replica(self) -> Replica:
        port = free_port()
        # By default a list has a second, which processors that other tests have may not give it.
        return ForkedReplica(self.folder / f"server-{port}", port, *self.flags, "--timeout-ms", "20000")

    @contextmanager
    def gateway(self) -> Iterator[None]:
        self.url = "http://fleet"
        yield

    def client(self, url: str = "") -> httpx.Client:
        if url:
            return super().client(url)
        transport = ByChance([replica.address for replica in self.replicas])
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, transport=transport, timeout=ANSWER_SECONDS + 1)


@pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_and_no_list_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # How soon servers ask a Redis again that is whole is for `make fleet-check`, on a machine where nothing else runs.
    monkeypatch.setattr(judge, "ASK_SECONDS", float("inf"))
    with ExitStack() as stack:
        outcome = run_trial(0, Ground(tmp_path, stack, 3, ForkedFleet), 80)
    assert outcome.complaints == []
    # A trial in which these did not happen would prove nothing; on a crowded machine faults take more of its time.
    assert outcome.acknowledged > 10
    assert outcome.lists > 10
    assert sum(outcome.faults.values()) > 1


def test_envoy_can_be_told_how_the_fleet_is_reached():
    """Its configuration is made as that of the chart's routes, and so of all that these say."""
    config = envoy_config([(ROUTE, POLICY)], 8000, 8001, ["127.0.0.1:8002"])
    (listener,) = config["static_resources"]["listeners"]
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    (route,) = host["routes"]
    assert route["route"]["timeout"] == f"{ANSWER_SECONDS}s"
    assert route["route"]["retry_policy"]["num_retries"] == 0
