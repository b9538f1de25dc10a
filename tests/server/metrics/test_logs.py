"""What a log line carries: the request's id, in text and as JSON, and nothing of what the user met."""

import json
import logging

from typer.testing import CliRunner

from server.client.origin import KEY_FILE_VARIABLE, KEY_VARIABLE
from server.commands.app import app
from server.metrics import logs
from tests.server.forked_server import ForkedServer


def test_a_json_line_names_the_process_and_the_request(capsys):
    logs.configure_logs("info", "api", "json")
    token = logs.request_id.set("request-7")
    logging.getLogger("somewhere").warning("what %s", "happened")
    logs.request_id.reset(token)
    logging.getLogger("somewhere").info("later")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert {key: first[key] for key in ("level", "logger", "message", "process", "request_id")} == {
        "level": "WARNING",
        "logger": "somewhere",
        "message": "what happened",
        "process": "api",
        "request_id": "request-7",
    }
    assert "request_id" not in second


def test_a_line_for_people_ends_in_the_request(capsys):
    logs.configure_logs("info", "api")
    token = logs.request_id.set("request-7")
    logging.getLogger("somewhere").warning("what %s", "happened")
    logs.request_id.reset(token)
    logging.getLogger("somewhere").info("later")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" somewhere: what happened [request request-7]")
    assert second.endswith(" somewhere: later")


def test_why_a_server_has_ended_is_json_for_programs_and_a_sentence_for_people(tmp_path):
    sentence = f"There is no model directory {tmp_path / 'absent'}."
    flags = ["serve", "--target", str(tmp_path / "absent"), "--catalog", "absent.json", "--histories", "memory://"]
    ended = CliRunner().invoke(app, [*flags, "--log-format", "json"])
    (line,) = (json.loads(line) for line in ended.stderr.splitlines())
    assert (ended.exit_code, line["level"], line["message"]) == (1, "ERROR", f"the server has ended: {sentence}")
    ended = CliRunner().invoke(app, flags)
    assert (ended.exit_code, ended.stderr.splitlines()) == (1, [sentence])


def test_a_variable_that_is_no_setting_is_told_by_its_name(tmp_path):
    flags = ["serve", "--target", str(tmp_path / "absent"), "--catalog", "absent.json", "--histories", "memory://"]
    others = dict.fromkeys((KEY_VARIABLE, KEY_FILE_VARIABLE, "ATSPEED_CACHE", "atspeed_max_running"), "8")
    ended = CliRunner().invoke(app, flags, env={"ATSPEED_KV_MEMORY": "a-secret", "ATSPEED_KEYS_FILE": "a-secret"} | others)
    told, _ = ended.stderr.splitlines()
    assert " WARNING " in told
    assert told.endswith(": no setting of this server has such a name, see `atspeed serve --help`: ATSPEED_KEYS_FILE, ATSPEED_KV_MEMORY")


def test_a_server_logs_json_with_request_ids_and_nothing_that_users_met(model_flags, tmp_path):
    """A Redis that is away makes the API process log while it answers; debug is the most that is ever logged."""
    patience = ("--timeout-ms", "20000", "--history-timeout-ms", "10000")
    flags = ("--histories", "redis://127.0.0.1:1/0", "--control", "memory://", "--log-format", "json", "--log-level", "debug", *patience)
    with ForkedServer(tmp_path, *model_flags, *flags) as server:
        server.wait_until_ready()
        assert server.recommend(history=["item-17", "item-23"], exclude=["item-42"], k=2).status_code == 200
        known = {"profile": {"a": "known-secret"}, "context": {"b": "known-secret"}, "behaviours": {"known-secret": ["item-17"]}}
        event = {"item_id": "item-17", "kind": "known-secret", "attributes": {"c": "known-secret"}}
        for told in (known, {"history": [event]}, {"context": {"a": {"b": "known-secret"}}}, {"profile": "known-secret"}):
            assert server.recommend(**({"history": ["item-17"], "k": 2} | told)).status_code in (200, 422)
        failed = server.client.post("/v1/recommendations", json={"user_id": "user-secret", "k": 1}, headers={"x-request-id": "trace-me"})
        assert failed.status_code == 503
        assert failed.headers["x-request-id"] == "trace-me"
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert [line["request_id"] for line in lines if "cannot serve histories" in line["message"]] == ["trace-me"]
    assert {line["process"] for line in lines} == {"api", "engine"}
    for secret in ("item-17", "item-23", "item-42", "user-secret", "known-secret"):
        assert secret not in server.log
