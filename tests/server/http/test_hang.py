"""An engine that hangs, and processes that are killed or told to end at a bad moment: everybody is told, and nothing is left behind."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import groupby
from pathlib import Path

import psutil
import pytest

from server.engine.directory import PREFIX
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, assert_problem, post, problem
from tests.waiting import has_ended, wait_until

SILENT = "The engine gives no sign of life; if that goes on, another is started."
HUNG = "The engine is being restarted after it hung."
HANG_SECONDS = 5


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server and its engine put temporary files; a short path, for sockets have no long ones."""
    directory = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.fixture(scope="module")
def watched(model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("watched")
    flags = ["--histories", "memory://", "--timeout-ms", "60000", "--engine-hang-seconds", str(HANG_SECONDS), "--catalogs", str(folder)]
    with ForkedServer(folder, *model_flags, *flags) as server:
        yield server.wait_until_ready()


def test_an_engine_that_is_idle_or_busy_is_not_taken_for_hung_nor_while_the_server_stands_still(watched: ServerProcess):
    server, api = watched, psutil.Process(watched.process.pid)
    with ThreadPoolExecutor(8) as pool:
        time.sleep(HANG_SECONDS + 1)
        api.suspend()
        time.sleep(HANG_SECONDS + 1)
        api.resume()

        def ask(_: int) -> str:
            """The first answer that says more than that the engine is silent for the moment, as one is on a crowded machine."""
            while SILENT in (answer := server.recommend(history=["item-1"] * 5, k=100, beam_width=256)).text:
                time.sleep(0.1)
            return "" if answer.status_code == 200 else answer.text

        assert set(pool.map(ask, range(60))) == {""}
        assert server.metric("atspeed_engine_hangs_total") == 0


def test_an_engine_that_hangs_is_replaced_and_nobody_waits_for_it(watched: ServerProcess, catalog_file: Path):
    server = watched
    with ExitStack() as stack:
        engine, api = server.engine, psutil.Process(server.process.pid)
        kind, catalog = {"Content-Type": "application/x-ndjson"}, catalog_file.read_bytes()
        upload = server.client.put("/v1/catalogs/next", content=catalog, headers=kind, timeout=120)
        assert upload.status_code == 201, upload.text
        *waiting, activating = [stack.enter_context(closing(server.connect())) for _ in range(5)]
        before = server.recommend(history=["item-1"]).json()["items"]
        # A server that stands still finds all requests at once when it goes on, and has not looked at the time since the engine lived.
        api.suspend()
        server.wait_for(lambda: api.status() == psutil.STATUS_STOPPED)
        engine.suspend()
        for connection in waiting:
            post(connection, "/v1/recommendations", {"history": ["item-1"]})
        post(activating, "/v1/catalogs/next/activate", {"by": "a test"})
        api.resume()
        told: list[str] = []

        def ask_until_replaced() -> bool:
            if (response := server.client.get("/ready")).status_code == 503:
                told.extend([response.json()["detail"], server.recommend(history=["item-1"]).json()["detail"]])
            return HUNG in told

        server.wait_for(ask_until_replaced, 25)
        assert [sentence for sentence, _ in groupby(told)] == [SILENT, HUNG]
        assert [problem(connection) for connection in waiting] == [(503, "The engine hung while it worked on this request.")] * 4
        assert problem(activating)[0] == 503
        assert server.metric("atspeed_engine_up") == 0
        assert server.client.get("/health").status_code == 503
        assert_problem(server.client.get("/ready"), 503, HUNG)
        assert psutil.wait_procs([engine], timeout=20)[1] == []
        server.wait_until_ready()
        assert server.metric("atspeed_engine_hangs_total") == server.metric("atspeed_engine_restarts_total") == 1
        after = server.recommend(history=["item-1"]).json()["items"]
        assert [line["item_id"] for line in after] == [line["item_id"] for line in before]
        # Nobody holds the lock.
        assert server.client.post("/v1/catalogs/next/activate", json={"by": "a test"}, timeout=60).status_code == 200
        assert "and is killed" in server.log
        assert "Traceback" not in server.log


def starting(server: ServerProcess) -> psutil.Process:
    """The engine while it imports its modules."""
    return server.wait_for_engine()


def loading(server: ServerProcess) -> psutil.Process:
    """The engine while it loads its model."""
    engine = starting(server)
    server.wait_for(lambda: engine.num_threads() > 1)
    return engine


def ready(server: ServerProcess) -> psutil.Process:
    return server.wait_until_ready().engine


def hung(server: ServerProcess) -> psutil.Process:
    """The engine, stopped for good."""
    engine = ready(server)
    engine.suspend()
    return engine


MOMENTS = [starting, loading, ready, hung]
# The ends of ready servers, and of loading ones that are killed, are looked at in `test_server.py`.
SOME = [starting, loading, pytest.param(ready, marks=pytest.mark.exhaustive), hung]


def kind_of_server(moment: Callable[[ServerProcess], psutil.Process]) -> type[ServerProcess]:
    """A real one where its engine imports and loads; what is up need not have done so anew."""
    return ServerProcess if moment in (starting, loading) else ForkedServer


@pytest.mark.parametrize("moment", SOME)
def test_a_server_ends_in_time_whatever_its_engine_does(
    model_flags: list[str], tmp_path: Path, temporary: Path, moment: Callable[[ServerProcess], psutil.Process]
):
    with kind_of_server(moment)(tmp_path, *model_flags, "--histories", "memory://") as server:
        engine = moment(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("moments", [(starting, hung), pytest.param(MOMENTS, marks=pytest.mark.exhaustive)], ids=["some", "all"])
def test_nothing_outlives_a_server_that_is_killed(
    model_flags: list[str], tmp_path: Path, temporary: Path, moments: Sequence[Callable[[ServerProcess], psutil.Process]]
):
    left: set[Path] = set()
    for moment in (*moments, starting):
        with kind_of_server(moment)(tmp_path, *model_flags, "--histories", "memory://") as server:
            # Files of the dead are gone with the next start.
            server.wait_for(lambda server=server: bool(psutil.Process(server.process.pid).children()))
            assert not left & set(temporary.iterdir())
            engine = moment(server)
            server.process.kill()
            wait_until(lambda engine=engine: has_ended(engine))
        left = set(temporary.iterdir())
        assert all(path.name.startswith(PREFIX) for path in left)
