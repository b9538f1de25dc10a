"""Programs beside a measurement: ready when they answer, gone when the measurement ends, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import server_process
from benchmarks.endings import ProgramError
from benchmarks.server_process import Program

ROOT = Path(__file__).parents[2]
SERVER = "import http.server; http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
# What `atspeed-bench` does first, and then any measurement.
MEASUREMENT = """
import sys, time
from pathlib import Path
from benchmarks.endings import end_on_sigterm
from benchmarks.server_process import Program
end_on_sigterm()
with Program([sys.executable, "-c", {code!r}], Path({log!r}), {url!r}) as program:
    print(program.process.pid, flush=True)
    time.sleep(60)
"""


def test_a_program_is_ready_when_it_answers_and_gone_afterwards(tmp_path: Path, unused_tcp_port: int):
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with Program([sys.executable, "-c", SERVER.format(port=unused_tcp_port)], tmp_path / "new" / "log", url) as program:
        assert program.client.get(url).status_code == 200
        assert psutil.pid_exists(program.process.pid)
    assert program.process.poll() == -signal.SIGTERM
    assert "GET / HTTP" in program.log


def test_a_measurement_that_is_ended_by_sigterm_ends_what_it_has_started(tmp_path: Path, unused_tcp_port: int):
    code, url = SERVER.format(port=unused_tcp_port), f"http://127.0.0.1:{unused_tcp_port}"
    script = MEASUREMENT.format(code=code, log=str(tmp_path / "log"), url=url)
    measuring = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert measuring.stdout is not None
    started = psutil.Process(int(measuring.stdout.readline()))
    measuring.terminate()
    assert measuring.wait(20) == 128 + signal.SIGTERM
    assert not started.is_running()


def test_a_program_that_ends_by_itself_is_a_failure_with_its_log(tmp_path: Path):
    program = Program([sys.executable, "-c", "print('no such model'); exit(3)"], tmp_path / "log", "http://127.0.0.1:9")
    with pytest.raises(ProgramError, match=r"ended with status 3:\nno such model"), program:
        pass


def test_a_program_that_ignores_sigterm_is_killed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_process, "STOP_SECONDS", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    program = Program([sys.executable, "-c", code], tmp_path / "log")
    with pytest.raises(ProgramError, match=r"did not end within 0 s of SIGTERM:\ndeaf"), program:
        program.wait_for(lambda: "deaf" in program.log)
    assert program.process.poll() == -signal.SIGKILL
