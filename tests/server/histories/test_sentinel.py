"""A Redis behind Sentinels: passwords on both sides, TLS, and Sentinels that are down or hang."""

import asyncio
import time
from urllib.parse import quote

import pytest

from server.histories import Event, open_history_store
from server.try_again import HistoryUnavailable
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisServer, SentinelServers, free_port, make_certificate

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)

# What a URL would take for its own signs.
MASTER, WATCH = "ma+ster/:@?", "wa+tch&#%"
HISTORY = [Event("a", 1.0, "a")]


@pytest.fixture
def start(tmp_path):
    """Starts a master, with options of its own, and a Sentinel in front of it."""
    running = []

    def start(*options, tls=False, config=(), client=None) -> SentinelServers:
        master = RedisServer(tmp_path, *options, tls=tls).start()
        running.append(master)
        sentinels = SentinelServers(tmp_path, master, config=config, client=client)
        running.append(sentinels)
        return sentinels.wait_for(replicas=0)

    yield start
    for server in running:
        server.close()


def guarded(start, **more):
    """A master and a Sentinel that each ask for their own password."""
    config = (f'requirepass "{WATCH}"', f'sentinel auth-pass films "{MASTER}"', *more.pop("config", ()))
    return start(
        "--requirepass", MASTER, *more.pop("options", ()), config=config, client={"password": WATCH, **more.pop("client", {})}, **more
    )


async def test_the_master_and_its_sentinels_each_have_a_password(start):
    sentinels = guarded(start)
    url = f"redis+sentinel://:{quote(MASTER, safe='')}@{sentinels.hosts}/films/0"
    store = open_history_store(f"{url}?sentinel_password={quote(WATCH, safe='')}", timeout_seconds=10)
    assert await store.append("ann", HISTORY) == 1
    assert await store.read("ann") == HISTORY
    await store.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [("", "Authentication required"), ("?sentinel_password=hunter2", "password")],
    ids=["without a password", "with a wrong one"],
)
async def test_a_sentinel_that_refuses_is_named_and_its_password_is_not(start, options, sentence):
    sentinels = guarded(start)
    store = open_history_store(f"redis+sentinel://:hunter2@{sentinels.hosts}/films/0{options}", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match=f"the Sentinel at {sentinels.hosts}: .*{sentence}") as refusal:
        await store.read("nobody")
    assert "hunter2" not in str(refusal.value)
    await store.close()


async def test_a_master_that_sentinels_do_not_know(start):
    sentinels = start()
    store = open_history_store(f"redis+sentinel://{sentinels.hosts}/books/0", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match="knows no master of that name"):
        await store.read("nobody")
    await store.close()


async def test_passwords_in_files_and_tls_on_both_sides(start, tmp_path):
    certificate, key = make_certificate(tmp_path)
    tls = ("tls-cert-file", certificate), ("tls-key-file", key), ("tls-ca-cert-file", certificate), ("tls-auth-clients", "no")
    sentinels = guarded(
        start,
        tls=True,
        options=[part for name, value in tls for part in (f"--{name}", str(value))],
        config=[*(f"{name} {value}" for name, value in tls), "tls-replication yes"],
        client={"ssl": True, "ssl_ca_certs": str(certificate)},
    )
    for name, password in (("master", MASTER), ("watch", WATCH)):
        (tmp_path / name).write_text(f"{password}\n")
    files = f"password_file={tmp_path / 'master'}&sentinel_password_file={tmp_path / 'watch'}"
    store = open_history_store(f"rediss+sentinel://{sentinels.hosts}/films/0?{files}&ssl_ca_certs={certificate}", timeout_seconds=10)
    assert await store.append("ann", HISTORY) == 1
    assert await store.read("ann") == HISTORY
    await store.close()
    wary = open_history_store(f"rediss+sentinel://{sentinels.hosts}/films/0?{files}", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match="certificate"):
        await wary.read("nobody")
    await wary.close()


async def test_a_sentinel_that_is_down_is_tried_once_and_asked_last_then(start, monkeypatch):
    """The machine of a master that dies often has a Sentinel on it, which costs no time."""
    sentinels, down, tried, connect = start(), free_port(), [], asyncio.open_connection

    async def counted(*arguments, **named):
        tried.append(named["port"])
        return await connect(*arguments, **named)

    monkeypatch.setattr(asyncio, "open_connection", counted)
    store = open_history_store(f"redis+sentinel://127.0.0.1:{down},{sentinels.hosts}/films/0", timeout_seconds=10)
    await asyncio.gather(store.read("nobody"))
    await asyncio.gather(*(store.read("nobody") for _ in range(8)))
    assert tried[0] == down
    assert tried.count(down) == 1
    assert tried.count(sentinels.ports[0]) >= 1
    await store.close()


async def test_a_sentinel_that_hangs_leaves_time_to_ask_another_and_is_asked_last_then(start):
    sentinels = start()
    asked = []
    hanging = await asyncio.start_server(lambda reader, writer: asked.append(writer), "127.0.0.1", 0)
    (address,) = [socket.getsockname() for socket in hanging.sockets]
    store = open_history_store(f"redis+sentinel://{address[0]}:{address[1]},{sentinels.hosts}/films/0", timeout_seconds=3)
    begun = time.monotonic()
    await store.read("nobody")
    assert time.monotonic() - begun >= 1
    # Another connection, because the first one is in use: it asks who the master is again.
    await asyncio.gather(*(store.read("nobody") for _ in range(8)))
    assert len(asked) == 1
    await store.close()
    asked[0].close()
    hanging.close()
