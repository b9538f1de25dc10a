"""The generator against servers that stall, refuse, hang up and forget; then against the real one, by the command."""

import asyncio
import json
from itertools import accumulate, count, takewhile
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.load import run as generator
from benchmarks.load.report import LoadReport
from benchmarks.load.run import LoadRun
from benchmarks.load.settings import LoadSettings
from benchmarks.load.target import Target, TargetError
from benchmarks.load.users import Users
from tests.benchmarks.load.scripted_target import Shop, served
from tests.server.server_process import ServerProcess


async def loaded(
    shop: Shop,
    rate: float = 200.0,
    seconds: float = 0.5,
    *,
    warmup: float = 0.0,
    timeout_ms: int = 10_000,
    growth: float = 0.0,
    hang_ups: float = 0.0,
) -> LoadReport:
    async with served(shop) as url:
        target = Target(url)
        settings = LoadSettings(rate, seconds, warmup, 5, (timeout_ms, timeout_ms), growth, hang_ups)
        report = await LoadRun(target, Users(20, 1.0, 0), settings).run()
        await target.close()
    return report


def due(rate: float, begin: float, end: float) -> int:
    """How many requests are due between two moments, whatever the server does."""
    arrivals = Random("arrivals 0")
    gaps = (arrivals.expovariate(rate) for _ in count())
    return sum(begin <= at < end for at in takewhile(lambda at: at < end, accumulate(gaps)))


async def test_requests_name_their_user_for_proxies():
    shop = Shop()
    await loaded(shop, growth=1.0)
    assert shop.named >= set(shop.events)
    assert all(name.startswith("load-0-") for name in shop.named)


async def test_requests_come_at_their_rate_and_are_all_accounted_for():
    shop = Shop()
    report = await loaded(shop, rate=200, seconds=1.0, warmup=0.3)
    assert report.requests == report.on_time == due(200, 0.3, 1.3)
    assert report.offered_rps == report.requests
    assert shop.asked == due(200, 0.0, 1.3)
    assert report.completed_rps == report.goodput_rps == report.offered_rps
    assert (report.cached_token_share, report.cache_hit_rate) == (0.5, 1.0)
    assert report.errors == report.refused == report.late == 0


async def test_a_server_that_stalls_is_not_asked_less_and_the_wait_counts():
    class Stalling(Shop):
        async def recommend(self, body: Any) -> tuple[int, Any] | None:
            await asyncio.sleep(0.4)
            return await super().recommend(body)

    shop = Stalling()
    report = await loaded(shop, rate=200, seconds=0.5, timeout_ms=300)
    assert report.requests == due(200, 0.0, 0.5)
    assert shop.connections > 50
    assert report.late == report.requests
    assert report.goodput_rps == 0
    assert report.p50_ms is not None
    assert report.p50_ms >= 400


async def test_times_are_those_of_a_fine_clock(monkeypatch: pytest.MonkeyPatch):
    """The event loop's own counts whole milliseconds where the loop is uvloop's."""
    ticks = count(0.0, 0.25)
    monkeypatch.setattr(generator, "time", SimpleNamespace(time=lambda: 0.0, perf_counter=lambda: next(ticks)))
    # All are due within a second, and each takes four looks at the clock, a second in all.
    report = await loaded(Shop(), rate=20, seconds=1.0, timeout_ms=60_000)
    assert report.requests == report.on_time == due(20, 0.0, 1.0)
    assert report.generator_lag_max_ms is not None
    assert report.max_ms is not None
    assert report.generator_lag_max_ms > 1000
    assert report.max_ms > report.generator_lag_max_ms


async def test_a_request_that_a_timer_sends_early_is_due_then(monkeypatch: pytest.MonkeyPatch):
    real = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda *_: real(0))
    monkeypatch.setattr(generator, "time", SimpleNamespace(time=lambda: 0.0, perf_counter=lambda: 0.0))
    report = await loaded(Shop(), rate=20, seconds=1.0)
    assert report.requests == report.on_time == due(20, 0.0, 1.0)
    assert report.max_ms == report.generator_lag_max_ms == 0


async def test_every_other_ending_is_counted_by_what_it_was():
    class Moody(Shop):
        async def recommend(self, body: Any) -> tuple[int, Any] | None:
            # Twice in a row: a connection that is lost before anything came is tried once more.
            status = (429, 504, 503, 500, None, None)[self.asked % 6]
            return None if status is None else (status, {})

    report = await loaded(Moody())
    endings = (report.refused, report.timed_out, report.unavailable, report.errors)
    assert sum(endings) == report.requests
    assert all(endings)
    assert report.mistakes.keys() == {"status 500", "RemoteProtocolError"}
    assert sum(report.mistakes.values()) == report.errors
    assert report.refused_p99_ms is not None
    assert report.p99_ms is None


async def test_an_answer_that_is_no_list_is_an_error():
    """As a proxy's page with the status 200: such requests were in no figure."""

    class Other(Shop):
        async def recommend(self, body: Any) -> tuple[int, Any] | None:
            return 200, {"page": "Please log in"}

    report = await loaded(Other(), rate=200, seconds=0.1)
    assert report.errors == report.requests == due(200, 0.0, 0.1)
    assert report.mistakes == {"ValidationError": report.requests}


async def test_what_a_full_history_has_dropped_is_not_lost_but_a_gap_is():
    class Full(Shop):
        """Keeps the newest five events, but for the third of these."""

        def history(self, user: str) -> list[dict[str, Any]]:
            newest = super().history(user)[-5:]
            return newest[:2] + newest[3:]

    shop = Full()
    report = await loaded(shop, rate=400, growth=1.0)
    assert max(map(len, shop.events.values())) > 5
    assert report.events_lost == sum(len(events) >= 3 for events in shop.events.values())


async def test_histories_grow_and_a_lost_event_is_noticed():
    shop = Shop()
    report = await loaded(shop, growth=1.0)
    assert report.events_stored == report.requests == sum(map(len, shop.events.values()))
    assert report.events_lost == 0
    shop = Shop()
    shop.forgets = True
    report = await loaded(shop, growth=1.0)
    assert report.events_lost == report.events_stored == report.requests


async def test_clients_hang_up():
    class Silent(Shop):
        async def recommend(self, body: Any) -> tuple[int, Any] | None:
            await asyncio.sleep(1.0)
            return await super().recommend(body)

    report = await loaded(Silent(), rate=50, hang_ups=1.0, timeout_ms=500)
    assert report.hung_up == report.requests > 0


async def test_first_histories_are_given_once_and_a_server_that_refuses_them_is_named():
    shop = Shop()
    async with served(shop) as url:
        target = Target(url)
        for _ in range(2):
            await target.seed(["u", "v", "w"], [["a", "b"], ["b"]])
        assert {user: [event["item_id"] for event in events] for user, events in shop.events.items()} == {
            "u": ["a", "b"],
            "v": ["b"],
            "w": ["a", "b"],
        }
        assert await target.items() == ["a", "b"]
        await target.close()

        async def refuse(method: str, path: str, body: Any) -> tuple[int, Any]:
            return 422, {}

        shop.answer = refuse
        target = Target(url)
        with pytest.raises(TargetError, match="does not take the histories"):
            await target.seed(["u"], [["a"]])
        with pytest.raises(TargetError, match="is not ready"):
            await target.check()
        await target.close()
    target = Target(url)
    with pytest.raises(TargetError, match="There is no server at"):
        await target.check()
    await target.close()


async def test_a_connection_that_the_server_closed_while_idle_is_replaced_and_one_that_breaks_off_is_not():
    class Closing(Shop):
        lost = 0

        async def answer(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
            self.lost += path == "/lost"
            if path == "/lost" or (path == "/next" and self.connections == 2):
                return None
            return 200, {}

    shop = Closing()
    async with served(shop) as url:
        target = Target(url)
        with pytest.raises(httpx.RemoteProtocolError):
            await target.ask("GET", f"{url}/lost")
        assert shop.lost == shop.connections == 1
        await target.close()
        assert (await target.ask("GET", f"{url}/first")).status_code == 200
        assert (await target.ask("GET", f"{url}/next")).status_code == 200
        assert shop.connections == 3
        await target.close()


def test_the_command_loads_a_real_server(server: ServerProcess, tmp_path: Path):
    flags = [
        "load",
        "--url",
        str(server.client.base_url),
        "--duration",
        "1.5",
        "--warmup",
        "0.5",
        "--users",
        "20",
        "-k",
        "3",
        "--timeout-ms",
        "5000",
    ]
    result = CliRunner().invoke(app, [*flags, "--sweep", "10,30", "--json", str(tmp_path / "load.json")])
    assert result.exit_code == 0, result.output
    assert "knee: 30 requests a second" in result.stdout
    found = json.loads((tmp_path / "load.json").read_text())
    assert [run["rate"] for run in found["runs"]] == [10, 30]
    for run in found["runs"]:
        assert run["on_time"] == run["requests"] > 0
        assert run["events_lost"] == run["errors"] == 0
    result = CliRunner().invoke(app, [*flags, "--rate", "10", "--json", str(tmp_path / "one.json"), "--hang-ups", "0.2"])
    assert result.exit_code == 0, result.output
    assert {"offered_rps", "completed_rps", "goodput_rps", "p50_ms", "p99_ms", "refused", "errors"} <= json.loads(
        (tmp_path / "one.json").read_text()
    ).keys()


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        (["--url", "http://192.0.2.1:8000"], 1, "is not on this machine"),
        (["--url", "http://127.0.0.1:9"], 1, "There is no server at http://127.0.0.1:9"),
        (["--histories", "/no/such"], 1, "There is no server at"),
        (["--sweep", "1,x"], 2, "--sweep takes rates above 0"),
        (["--timeout-ms", "9-5"], 2, "--timeout-ms takes milliseconds from 1 to 60000"),
    ],
)
def test_what_cannot_be_done_gets_one_sentence(flags: list[str], status: int, sentence: str):
    result = CliRunner().invoke(app, ["load", "--url", "http://127.0.0.1:9", *flags], env={"COLUMNS": "200"})
    assert result.exit_code == status
    assert sentence in result.stderr
