"""A real server on vLLM, which differs from the other host in how its engine process starts and dies."""

import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.server.server_process import ServerProcess

# vLLM imports for seconds, and twice here; on a busy machine for much longer.
START_SECONDS = 240.0

pytestmark = [pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"), pytest.mark.timeout(600)]


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_server_lists_and_ends_cleanly_and_a_killed_engine_comes_back(model_flags: list[str], tmp_path: Path, dies: bool):
    flags = ["--engine", "vllm", "--histories", "memory://", "--timeout-ms", "60000", "--kv-memory-gib", "0.05", "--plan", "auto"]
    body = {"history": ["item-3", "item-14"], "k": 5}
    with ServerProcess(tmp_path, *model_flags, *flags) as server:
        server.wait_until_ready(START_SECONDS)
        assert server.client.get("/version").json()["engine"] == "vllm"
        answer = server.recommend(**body)
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        assert {item["rank"] for item in items} == {1, 2, 3, 4, 5}

        files = " ".join(mapped.path for mapped in server.engine.memory_maps())
        assert "/vllm/" in files
        assert not {name for name in ("/cv2/", "/scipy/") if name in files}, "no start waits for what decodes sound and videos"

        if dies:
            killed = server.engine
            killed.kill()
            assert psutil.wait_procs([killed], timeout=30)[1] == []
            server.wait_for(lambda: server.client.get("/ready").status_code == 503, 30)
            server.wait_until_ready(START_SECONDS)
            again = server.recommend(**body).json()["items"]
            assert [item["item_id"] for item in again] == [item["item_id"] for item in items]
            assert [item["score"] for item in again] == pytest.approx([item["score"] for item in items], abs=1e-4)
            assert server.metric("atspeed_engine_restarts_total") == 1

        engine = server.engine
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log
