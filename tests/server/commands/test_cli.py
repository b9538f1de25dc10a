"""`atspeed recommend` and the command line around it, run as a user does."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.server_process import START_SECONDS
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from server.commands.app import app
from server.histories import Event, open_history_store
from tests.server.forked_server import start_atspeed

runner = CliRunner()
SMALL = ("--engine", "transformers", "--threads", "1", "--kv-memory-gib", "0.01")


@pytest.fixture
def invoke_here(model_flags: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`atspeed recommend` in this process, which has the model libraries loaded."""
    # It would take the log of this process away from pytest.
    monkeypatch.setattr("server.offline.run.configure_logs", lambda level, process: None)
    return lambda *flags: runner.invoke(app, ["recommend", *SMALL, *model_flags, *flags], catch_exceptions=False)


@pytest.fixture
def recommend_here(invoke_here: Callable[..., Result]) -> Callable[..., str]:
    """`atspeed recommend` in this process; its output."""

    def run(*flags: str) -> str:
        result = invoke_here(*flags)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_a_file_of_users_gives_a_file_of_lists_and_a_bad_line_costs_only_itself(
    invoke_here: Callable[..., Result], catalog: Catalog, tmp_path: Path
):
    lines = [
        json.dumps({"user_id": f"u{i}", "history": [catalog.item_ids[i], catalog.item_ids[i + 7]], "k": 1 + i % 7}) for i in range(150)
    ]
    lines[3] = '{"history": ['
    lines[5] = json.dumps({"user_id": "u5", "history": ["item-9999"]})
    lines[7] = json.dumps({"user_id": "u7", "history": []})
    lines[9] = json.dumps({"history": ["item-1"], "k": 500})
    lines[11] = json.dumps({"history": ["item-1"], "exclude": list(catalog.item_ids[10:]), "k": 3})
    (tmp_path / "users.jsonl").write_text("\n".join([*lines[:100], "", *lines[100:]]) + "\n")
    done = invoke_here("--input", str(tmp_path / "users.jsonl"), "--output", str(tmp_path / "recs.jsonl"))
    assert done.exit_code == 0, done.stderr
    assert "150/150" in done.stderr
    assert "users/s" in done.stderr
    recs = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert len(recs) == 150
    assert recs[3]["line"] == 4
    assert recs[3]["error"].startswith("The line is not a user:")
    assert recs[5] == {"line": 6, "user_id": "u5", "error": "The catalog has no item 'item-9999', which history names."}
    assert recs[7]["error"] == "The history is empty: recommendations need at least one item."
    assert recs[9]["line"] == 10
    assert recs[9]["error"].startswith("There is memory for beams of up to 256, not of 500:")
    assert {item["item_id"] for item in recs[11]["items"]} <= set(catalog.item_ids[:10])
    assert len({item["rank"] for item in recs[11]["items"]}) == 3
    for i in {*range(150)} - {3, 5, 7, 9, 11}:
        assert recs[i]["user_id"] == f"u{i}"
        assert len({item["rank"] for item in recs[i]["items"]}) == 1 + i % 7


def test_a_run_that_is_killed_goes_on_where_it_was(
    invoke_here: Callable[..., Result],
    model_flags: list[str],
    catalog: Catalog,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    users, output = tmp_path / "users.jsonl", tmp_path / "recs.jsonl"
    lines = [json.dumps({"user_id": f"u{i}", "history": [catalog.item_ids[i % 190]], "k": 3}) for i in range(1500)]
    users.write_text("\n".join(["", *lines]) + "\n")
    flags = ["--input", str(users), "--output", str(output), "--verification", "gumbel"]
    command = ["recommend", *SMALL, *model_flags, *flags]
    part = tmp_path / "recs.jsonl.part"

    def wait_for_lists(is_alive: Callable[[], bool]) -> None:
        before = part.stat().st_size if part.exists() else 0
        deadline = time.monotonic() + START_SECONDS
        while (part.stat().st_size if part.exists() else 0) <= before:
            assert is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    log = tmp_path_factory.mktemp("log") / "log"
    for sign, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 1)):
        process = start_atspeed(command, log)
        wait_for_lists(lambda process=process: process.poll() is None)
        process.send_signal(sign)
        assert process.wait(START_SECONDS) == status, log.read_text()
        assert not output.exists()
    assert log.read_text().splitlines()[-1] == "Interrupted. The same command goes on from here."
    seeds = json.loads(part.read_text().splitlines()[0])["seed"]
    done = invoke_here(*flags)
    assert done.exit_code == 0, done.stderr
    assert "users of an earlier run" in done.stderr
    recs = [json.loads(line) for line in output.read_text().splitlines()]
    assert [rec["user_id"] for rec in recs] == [f"u{i}" for i in range(1500)]
    # Seeds count up from line to line, also over an interruption.
    assert [rec["seed"] for rec in recs] == [seeds + i for i in range(1500)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs.jsonl", "users.jsonl"]


def test_one_stored_user_as_a_table(recommend_here: Callable[..., str], tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'histories.db'}"

    async def store() -> None:
        histories = open_history_store(url)
        await histories.append("anna", [Event("item-1", 1.0), Event("left the catalog", 2.0)])
        await histories.close()

    asyncio.run(store())
    head, *rows = recommend_here("--histories", url, "--user", "anna", "-k", "3").splitlines()
    assert head.split() == ["rank", "score", "item", "title"]
    assert {row.split()[0] for row in rows} == {"1", "2", "3"}
    assert "Title" in rows[0]


def test_one_history_as_json(recommend_here: Callable[..., str], catalog: Catalog):
    answer = json.loads(recommend_here("--history", "item-1, item-2", "--k", "2", "--exclude", "item-3", "--json"))
    assert answer["catalog_version"] == catalog.version
    assert (answer["precision"], answer["exact"]) == ("float32", True)
    assert {item["rank"] for item in answer["items"]} == {1, 2}


def test_a_sample_with_a_draft_says_how_it_was_made(recommend_here: Callable[..., str], model_dir: Path):
    flags = ("--history", "item-1,item-2", "-k", "4", "--draft", str(model_dir), "--plan", "beam:12", "--verification", "gumbel", "--json")
    answer = json.loads(recommend_here(*flags, "--seed", str(2**63 - 1), "--temperature", "2"))
    assert (answer["verification"], answer["seed"]) == ("gumbel", 2**63 - 1)
    # The target as its own draft is never wrong.
    usage = answer["usage"]
    assert (usage["target_forwards"], usage["draft_forwards"], usage["accepted_steps"], usage["plan"]) == (1, 2, 2, "beam:12")
    again = json.loads(recommend_here(*flags, "--seed", str(2**63 - 1), "--temperature", "2"))
    assert again["items"] == answer["items"]


def test_users_of_a_file_are_sampled_with_seeds_that_count_up(recommend_here: Callable[..., str], tmp_path: Path):
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["item-1"]}\n{"history": ["item-9999"]}\n{"history": ["item-1"]}\n')
    sampled = ("--verification", "gumbel", "-k", "6")
    recommend_here("--input", str(users), "--output", str(tmp_path / "recs.jsonl"), *sampled, "--seed", "7")
    first, _, third = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert (first["verification"], first["seed"], third["seed"]) == ("gumbel", 7, 9)
    assert first["usage"]["target_forwards"] + first["usage"]["accepted_steps"] == 3
    alone = json.loads(recommend_here("--history", "item-1", *sampled, "--seed", "9", "--json"))
    assert [item["item_id"] for item in third["items"]] == [item["item_id"] for item in alone["items"]]


def test_a_relaxed_sample_is_not_passed_off_as_more(invoke_here: Callable[..., Result]):
    result = invoke_here("--history", "item-1", "--verification", "relaxed", "--json")
    assert result.exit_code == 0, result.output
    assert "not distribution-preserving" in result.stderr
    answer = json.loads(result.stdout)
    assert (answer["verification"], answer["exact"]) == ("relaxed", False)
    assert 0 <= answer["seed"] < 2**53


def test_a_list_with_a_tolerance_says_whether_it_is_exact(recommend_here: Callable[..., str], model_dir: Path, tmp_path: Path):
    flags = ("-k", "5", "--draft", str(model_dir), "--plan", "beam:5")

    def found(*more: str) -> tuple[bool, set[str]]:
        answer = json.loads(recommend_here("--history", "item-1,item-2", *flags, *more, "--json"))
        return answer["exact"], {item["item_id"] for item in answer["items"]}

    exact, plain = found()
    assert (exact, found("--tolerance", "items=0"), found("--tolerance", "mass=0")) == (True, (True, plain), (True, plain))
    close, items = found("--tolerance", "items=1")
    assert not close
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["item-1", "item-2"]}\n{"history": ["item-1"], "k": 1}\n')
    recommend_here("--input", str(users), "--output", str(tmp_path / "recs.jsonl"), *flags, "--tolerance", "items=1")
    first, second = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert {item["item_id"] for item in first["items"]} == items
    assert second["error"] == "The tolerance must be of fewer items than k, got 1 and k = 1."


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--tolerance", "items=some"),
            "--tolerance takes items=N, a whole number from 0 on, or mass=E, a share from 0 up to 1, got 'items=some'.",
        ),
        (("--tolerance", "mass=1"), "--tolerance takes items=N"),
        (("--tolerance", "5"), "--tolerance takes items=N"),
        (("--tolerance", "=5"), "--tolerance takes items=N"),
        (("--tolerance", "items=10"), "The tolerance must be of fewer items than k, got 10 and k = 10."),
        (("--tolerance", "items=1", "--verification", "gumbel"), "Only strict lists have a tolerance: leave --tolerance out"),
    ],
)
def test_a_tolerance_that_makes_no_sense(invoke_here: Callable[..., Result], flags: tuple[str, ...], sentence: str):
    result = invoke_here("--history", "item-1", *flags)
    assert result.exit_code == 1
    assert sentence in result.stderr


def test_a_list_wider_than_the_plan_gets_one_sentence(model_flags: list[str], model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.offline.run.configure_logs", lambda level, process: None)
    flags = ["--engine", "transformers", "--threads", "1", *model_flags, "--draft", str(model_dir), "--plan", "beam:5"]
    result = runner.invoke(app, ["recommend", *flags, "--history", "item-1", "-k", "6"])
    assert result.exit_code == 1
    assert "The plan beam:5 drafts fewer prefixes than the 6 that this request keeps" in result.stderr


def test_ids_of_a_file_may_be_integers(recommend_here: Callable[..., str], catalog: Catalog, model_dir: Path, tmp_path: Path):
    renamed = catalog_of([(str(10**12 + index), catalog.identifier(index)) for index in range(len(catalog))])
    renamed.save(tmp_path / "renamed.jsonl")
    users = [{"user_id": 7, "history": [10**12 + 3, "1000000000004"], "exclude": [10**12 + 5], "k": 4}]
    (tmp_path / "users.jsonl").write_text("".join(map(json.dumps, users)))
    flags = (
        "--catalog",
        str(tmp_path / "renamed.jsonl"),
        "--input",
        str(tmp_path / "users.jsonl"),
        "--output",
        str(tmp_path / "recs.jsonl"),
    )
    recommend_here(*flags)
    (found,) = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    named = json.loads(recommend_here("--history", "item-3,item-4", "-k", "4", "--exclude", "item-5", "--json"))
    assert found["user_id"] == 7
    assert [item["item_id"] for item in found["items"]] == [str(10**12 + int(item["item_id"][5:])) for item in named["items"]]


def test_users_may_come_through_a_pipe(recommend_here: Callable[..., str], tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = "".join(json.dumps({"user_id": f"u{i}", "history": ["item-1"], "k": 1}) + "\n" for i in range(3))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pipe.write_text, lines)
        recommend_here("--input", str(pipe), "--output", str(tmp_path / "recs.jsonl"))
    recs = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert [rec["user_id"] for rec in recs] == ["u0", "u1", "u2"]


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_the_input_is_never_written_over(model_flags: list[str], tmp_path: Path, link: str):
    users, output = tmp_path / "users.jsonl", tmp_path / "recs.jsonl"
    users.write_text('{"history": ["item-1"]}\n')
    match link:
        case "none":
            output = tmp_path / ".." / tmp_path.name / "users.jsonl"
        case "symbolic":
            output.symlink_to(users)
        case "hard":
            output.hardlink_to(users)
    result = runner.invoke(app, ["recommend", "--engine", "transformers", *model_flags, "--input", str(users), "--output", str(output)])
    assert result.exit_code == 1
    assert f"The output {output} is the input itself" in result.stderr
    assert users.read_text() == '{"history": ["item-1"]}\n'


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "Give exactly one of --history, --user and --input."),
        (["--history", "a", "--user", "b"], "Give exactly one of --history, --user and --input."),
        (["--history", "a", "--output", "b"], "--output is for the users of --input: the list of one history or one user is printed."),
        (["--user", "a", "--ray", "auto"], "--ray is for the users of --input: the list of one history or one user is printed."),
        (
            ["--input", __file__, "--output", "b", "--output-format", "parquet"],
            "--output-format is for a folder of parts: the form of a file",
        ),
        (["--history", "item-1", "--k", "9", "--beam-width", "3"], "--beam-width must be at least --k, got 3 and 9."),
        (["--history", "item-9999"], "The catalog has no item 'item-9999', which history names."),
        (
            ["--history", "item-1", "--seed", "3"],
            "A seed is for lists that are sampled: leave it out, or choose gumbel or relaxed verification.",
        ),
        (
            ["--history", "item-1", "--verification", "lax"],
            "--verification (or ATSPEED_VERIFICATION) must be 'strict', 'gumbel' or 'relaxed', got 'lax'.",
        ),
        (["--history", "item-1", "--engine", "transformers", "--plan", "beam:5"], "The plan beam:5 needs a draft model"),
        (["--history", "item-1", "--engine", "transformers", "--plan", "beam:0"], "beam:0 is no plan"),
        (["--history", "item-1", "--engine", "transformers", "--quantization", "int8"], "quantizing them needs the vLLM host."),
        (["--history", "item-1", "--engine", "vllm", "--exact"], "The vLLM host can't make lists exact"),
        (["--history", ","], "The history is empty: recommendations need at least one item."),
        (["--user", "nobody", "--histories", "memory://"], "There is no user 'nobody': no events are stored for that id."),
        (["--user", "nobody", "--histories", "mysql://x"], "The history URL's scheme is 'mysql'"),
        (["--user", "nobody", "--histories", "sqlite:////no/such/h.db"], "There is no history file /no/such/h.db: name the server's"),
        (["--input", "/no/such/file", "--engine", "transformers"], "/no/such/file can't be opened: No such file or directory."),
        (
            ["--input", "/no/such/file", "--engine", "abacus"],
            "--engine (or ATSPEED_ENGINE) must be 'vllm' or 'transformers', got 'abacus'.",
        ),
    ],
)
def test_what_cannot_be_done_gets_one_sentence(model_flags: list[str], flags: list[str], sentence: str):
    result = runner.invoke(app, ["recommend", *model_flags, *flags])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_help_is_worth_reading():
    result = runner.invoke(app, ["serve", "--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for words in ("--target", "ATSPEED_HISTORIES", "redis://", "8000", "/docs"):
        assert words in result.stdout
    assert "recommend" in runner.invoke(app, ["--help"]).stdout
