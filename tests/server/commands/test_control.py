"""`atspeed control`: the state of a server as a file, and back."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.client import AtspeedClient
from server.commands.app import app
from tests.server.server_process import ServerProcess
from tests.services import free_port

runner = CliRunner()


def test_a_state_is_saved_and_restored(server: ServerProcess, tmp_path: Path):
    file = tmp_path / "control.backup"
    done = runner.invoke(app, ["control", "backup", str(file), "--url", server.url])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{file} holds the state, {file.stat().st_size:,} bytes.\n"
    assert list(tmp_path.iterdir()) == [file]
    with AtspeedClient(server.url, trust_env=False) as client:
        before = client.control().revision
    done = runner.invoke(app, ["control", "restore", str(file), "--url", server.url])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"The state is restored, as revision {before + 1}.\n"


def test_a_file_of_something_else_is_refused_in_a_sentence(server: ServerProcess, tmp_path: Path):
    (tmp_path / "films").write_text("films")
    done = runner.invoke(app, ["control", "restore", str(tmp_path / "films"), "--url", server.url])
    assert done.exit_code == 1
    assert "This is no backup of a control store" in done.stderr


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_server_that_is_not_there_is_said_in_a_sentence(command: str, tmp_path: Path):
    (tmp_path / "state").write_text("")
    done = runner.invoke(app, ["control", command, str(tmp_path / "state"), "--url", f"http://127.0.0.1:{free_port()}"])
    assert done.exit_code == 1
    assert "gave no answer" in done.stderr
