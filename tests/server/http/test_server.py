"""The life of a server: what it refuses to start with, what it survives, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.server_process import STOP_SECONDS
from drafting.catalog.catalog import Catalog
from server.catalogs.deaths import DEATHS
from server.histories import Event, open_history_store
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ROOT, ServerProcess, assert_problem, problem
from tests.services import free_port

# Less than a request or the end of a server may take, 20 s; nothing that is looked at here takes a second.
SOON_SECONDS = 10.0


def test_without_its_redis_a_server_answers_what_needs_no_history_and_ends_cleanly(model_flags: list[str], tmp_path: Path):
    flags = ["--histories", f"redis://:secret@127.0.0.1:{free_port()}/0", "--history-timeout-ms", "300", "--timeout-ms", "20000"]
    flags += ["--control", "memory://"]
    with ForkedServer(tmp_path, *model_flags, *flags) as server:
        server.wait_until_ready()
        assert server.recommend(history=["item-1"]).status_code == 200
        started = time.monotonic()
        response = server.recommend(user_id="anna")
        assert time.monotonic() - started < SOON_SECONDS
        assert_problem(response, 503, "The history store can't be reached now; requests with an inline history still work.")
        assert response.headers["retry-after"] == "1"
        assert server.client.post("/v1/users/anna/events", json={"item_id": "item-1"}).status_code == 503
        assert server.client.get("/ready").status_code == 200
        assert [server.recommend(user_id="anna").status_code for _ in range(20)] == [503] * 20
        assert server.metric("atspeed_history_errors_total") == 22
        assert server.log.count("the history store can't read") == server.log.count("the history store can't append") == 1
        assert "secret" not in server.log

        engine = server.engine
        engine.suspend()
        with server.waiting(1, history=["item-1"]) as (waiting,):
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: server.client.get("/ready").status_code == 503)
            engine.resume()
            assert waiting.getresponse().status == 200
        assert server.process.wait(STOP_SECONDS) == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log


async def test_a_damaged_history_file_is_told_at_start_and_costs_no_other_user(model_flags: list[str], tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}")
    for user in ("ann", "bob"):
        await store.append(user, [Event(f"item-{number}", float(number), f"{user}-{number}-{'x' * 80}") for number in range(100)])
    await store.close()
    content = path.read_bytes()
    lost = content.index(b"bob-50") // 4096 * 4096
    path.write_bytes(content[:lost] + bytes(4096) + content[lost + 4096 :])
    with ServerProcess(tmp_path, *model_flags, "--histories", f"sqlite:///{path}") as server:
        server.wait_for(lambda: "stored histories are damaged: " in server.log)
        assert f"The history file {path} is damaged (" in server.log
        assert server.metric("atspeed_history_damage_total", found="file") == 1
        assert server.client.get("/v1/users/bob/history").status_code == 409
        assert server.client.post("/v1/users/bob/events", json={"item_id": "item-1"}).status_code == 409
        assert len(server.client.get("/v1/users/ann/history").json()["events"]) == 100
        assert server.metric("atspeed_history_damage_total", found="history") == 2
        assert "bob" not in server.log
        assert server.client.delete("/v1/users/bob/history").status_code == 204
        assert server.client.post("/v1/users/bob/events", json={"item_id": "item-1"}).json()["stored"] == 1
        head = server.client.head("/v1/users/ann/history")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 1000
        assert server.client.get("/health").status_code == 200


def assert_loads_no_library_that_it_does_not_need(engine: psutil.Process) -> None:
    loaded = {part for mapped in engine.memory_maps() for part in Path(mapped.path).parts}
    assert "torch" in loaded
    assert not {"scipy", "sklearn", "vllm", "pyarrow", "pandas", "matplotlib"} & loaded


def assert_start_logs_nothing_but_own_lines(log: str) -> None:
    start = log.partition("model is ready")[0].splitlines()[:-1]
    assert start
    own = re.compile(r"\d{4}-\S+ \S+ (INFO|WARNING) +(api|engine)\[\d+\] (server|drafting|verification)\.")
    assert [line for line in start if not own.match(line)] == []


def test_a_server_that_is_told_to_end_is_not_ready_finishes_what_runs_and_takes_nothing_new(model_flags: list[str], tmp_path: Path):
    with ServerProcess(tmp_path, *model_flags, "--histories", "memory://", "--timeout-ms", "20000") as server:
        engine = server.wait_until_ready().engine
        assert_loads_no_library_that_it_does_not_need(engine)
        assert_start_logs_nothing_but_own_lines(server.log)
        engine.suspend()
        with server.waiting(4, history=["item-1"]) as running:
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: server.client.get("/ready").status_code == 503)
            for response in (server.client.get("/ready"), server.recommend(history=["item-1"])):
                assert_problem(response, 503, "The server is shutting down.")
                assert response.headers["connection"] == "close"
            assert server.client.get("/health").status_code == 200
            engine.resume()
            assert [connection.getresponse().status for connection in running] == [200] * 4
        assert server.process.wait(STOP_SECONDS) == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log


def test_a_grace_period_that_ends_ends_the_server_and_tells_those_who_wait(model_flags: list[str], tmp_path: Path):
    flags = ["--histories", "memory://", "--timeout-ms", "20000", "--grace-seconds", "0.5"]
    with ForkedServer(tmp_path, *model_flags, *flags) as server:
        engine = server.wait_until_ready().engine
        engine.suspend()
        with server.waiting(1, history=["item-1"]) as (waiting,):
            ended = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert problem(waiting) == (503, "The server is shutting down.")
            assert 0.4 < time.monotonic() - ended < SOON_SECONDS
        assert server.process.wait(STOP_SECONDS) == 0
        assert not engine.is_running()
        assert "requests that did not finish within 0.5 s are given up: 1" in server.log


def test_a_second_signal_does_not_wait(model_flags: list[str], tmp_path: Path):
    """And no engine is counted for its version any more: whoever kills the server now does so because its end takes long."""
    (versions := tmp_path / "versions").mkdir()
    flags = ["--histories", "memory://", "--timeout-ms", "20000", "--catalogs", str(versions), "--port", str(free_port())]
    with ForkedServer(tmp_path, *model_flags, *flags) as server:
        engine = server.wait_until_ready().engine
        assert list(versions.glob(f"{DEATHS}*"))
        engine.suspend()
        with server.waiting(1, history=["item-1"]) as (waiting,):
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: server.client.get("/ready").status_code == 503)
            assert server.process.poll() is None
            assert not list(versions.glob(f"{DEATHS}*"))
            server.process.send_signal(signal.SIGTERM)
            # Neither the end of the request's time, 20 s, nor that of the grace period.
            started = time.monotonic()
            assert problem(waiting) == (503, "The server is shutting down.")
            assert time.monotonic() - started < SOON_SECONDS
        assert server.process.wait(STOP_SECONDS) == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log


def test_the_engine_does_not_outlive_a_server_that_is_killed(model_flags: list[str], tmp_path: Path):
    with ServerProcess(tmp_path, *model_flags, "--histories", "memory://") as server:
        engine = server.wait_for_engine()
        assert_problem(server.client.get("/ready"), 503, "The engine is still loading the model.")
        assert server.client.get("/health").json() == {"status": "alive", "engine": "starting"}
        assert_problem(server.recommend(history=["item-1"]), 503, "The engine is still loading the model.")
        server.wait_for(lambda: engine.num_threads() > 1)
        server.process.kill()
        assert psutil.wait_procs([engine], timeout=SOON_SECONDS)[1] == []


def assert_refused(status: int, log: str, sentence: str) -> None:
    assert status == 1, log
    assert log.splitlines()[-1] == sentence
    assert "Traceback" not in log


@pytest.mark.parametrize("flags", [["--port"], ["--operate-port"], ["--console", "--console-port"]])
def test_a_port_in_use(flags: list[str], model_flags: list[str], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, log = ForkedServer(tmp_path, *model_flags, "--histories", "memory://", *flags, str(port)).run()
    assert_refused(status, log, f"Port {port} on 127.0.0.1 is in use: stop what listens there, or choose another with {flags[-1]}.")


def test_an_address_of_another_machine(model_flags: list[str], tmp_path: Path):
    status, log = ForkedServer(tmp_path, *model_flags, "--histories", "memory://", "--host", "192.0.2.1").run()
    assert_refused(status, log, "Port 0 on 192.0.2.1 can't be listened on: Cannot assign requested address.")


def test_a_model_directory_that_is_not_there(catalog_file: Path, tmp_path: Path):
    status, log = ForkedServer(tmp_path, "--target", str(tmp_path / "none"), "--catalog", str(catalog_file)).run()
    assert_refused(status, log, f"There is no model directory {tmp_path / 'none'}.")


def test_a_catalog_that_is_not_there(model_dir: Path, tmp_path: Path):
    status, log = ForkedServer(tmp_path, "--target", str(model_dir), "--catalog", str(tmp_path / "none.jsonl")).run()
    assert_refused(status, log, f"The catalog {tmp_path / 'none.jsonl'} cannot be read: No such file or directory.")


def test_a_catalog_that_only_torch_reads(model_dir: Path, tmp_path: Path):
    status, log = ForkedServer(tmp_path, "--target", str(model_dir), "--catalog", str(tmp_path / "sids.pt")).run()
    assert_refused(status, log, f"{tmp_path / 'sids.pt'} is a torch file: write it as one to serve from, with `atspeed catalog convert`.")


def test_a_history_url_that_means_nothing(model_flags: list[str], tmp_path: Path):
    status, log = ForkedServer(tmp_path, *model_flags, "--histories", "mysql://x").run()
    sentence = "The history URL's scheme is 'mysql': use memory://, sqlite:///path, redis://, redis+sentinel:// or redis+cluster://, "
    assert_refused(status, log, sentence + "the last three with rediss for TLS.")


def test_a_server_that_does_not_start_leaves_no_store_open(model_flags: list[str], tmp_path: Path):
    from server.http.server import run_server
    from server.settings import FlagSettings

    target, catalog = (Path(each) for each in model_flags[1::2])
    before = set(threading.enumerate())
    histories = f"sqlite:///{tmp_path}/histories.db"
    failure = run_server(FlagSettings(target=target, catalog=catalog, histories=histories, control="mysql://x", port=0))
    assert "'mysql'" in (failure or "")
    assert not [thread.name for thread in threading.enumerate() if thread not in before]


def test_a_model_directory_without_weights(catalog: Catalog, catalog_file: Path, model_dir: Path, tmp_path: Path):
    target = tmp_path / "model"
    target.mkdir()
    for file in model_dir.iterdir():
        if not file.name.endswith(".safetensors"):
            (target / file.name).write_bytes(file.read_bytes())
    status, log = ForkedServer(tmp_path, "--target", str(target), "--catalog", str(catalog_file), "--histories", "memory://").run()
    assert status == 1, log
    assert "Traceback" not in log
    assert str(target) in log.splitlines()[-1]
    assert "weights" in log.splitlines()[-1]


def test_a_way_of_verifying_that_there_is_not(model_flags: list[str], tmp_path: Path):
    status, log = ForkedServer(tmp_path, *model_flags, "--histories", "memory://", "--verification", "lax").run()
    assert status == 1, log
    sentence = "--verification (or ATSPEED_VERIFICATION) must be 'strict', 'gumbel' or 'relaxed', got 'lax'."
    assert log.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in log


@pytest.mark.parametrize("modules", ["server.http.server, drafting.prompts.text_prompts", "server.commands.app"])
def test_the_api_process_and_the_command_line_stay_light(modules: str):
    heavy = {"torch", "transformers", "vllm", "httpx", "server.client", "nicegui", "server.console", "obstore"}
    heavy |= {"fastapi", "numpy"} if modules == "server.commands.app" else set()
    code = f"import sys, {modules}; print(*(set(sys.modules) & {heavy!r}))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == ""
