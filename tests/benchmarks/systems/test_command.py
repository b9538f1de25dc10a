"""`atspeed-bench bench`: what it prints and writes, and its sentences. No figure of a shared machine is asserted."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.systems import http_system, interleaved
from benchmarks.systems import run as bench_run
from benchmarks.systems.histories import held_out_histories, random_histories
from benchmarks.systems.interleaved import Row
from benchmarks.systems.run import Report, Run
from benchmarks.systems.trace import Trace
from drafting.errors import InteractionError, SetupError
from tests.models import random_catalog
from tests.server.forked_server import FORKING, ForkedServer

runner = CliRunner()


def row(system: str, plan: str, k: int, concurrency: int, p50: float) -> Row:
    return Row(system, plan, k, False, concurrency, p50, 2 * p50, 4.0, 95.0, "5/5", 1e3 * concurrency / p50)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that the command asked for, answered with made-up rows."""
    asked: list[Run] = []

    def measure(run: Run) -> Report:
        asked.append(run)
        rows = [row("atspeed/x", plan, k, c, 10.0 * c) for k in run.ks for c in run.concurrencies for plan in run.models.plans]
        return Report([*rows, *(row("vllm", "none", k, 1, 50.0) for k in run.ks)], 1.5, run.models.threads)

    monkeypatch.setattr(bench_run, "measure", measure)
    return asked


@pytest.fixture
def bench() -> Callable[..., str]:
    def run(*flags: str) -> str:
        result = runner.invoke(app, ["bench", "--force", *flags], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_table_json_and_picture_show_the_same_rows(runs: list[Run], bench: Callable[..., str], tmp_path: Path):
    written, tables, picture = tmp_path / "rows.json", tmp_path / "rows.md", tmp_path / "rows.png"
    text = bench(
        "--shape", "tiny", "--k", "3,5", "--plans", "trie,beam:9", "--json", str(written), "--markdown", str(tables), "--plot", str(picture)
    )
    report = json.loads(written.read_text())
    assert len(report["rows"]) == 2 * (3 * 2 + 1)
    assert set(report["rows"][0]) == {
        *("system", "plan", "k", "cached", "concurrency", "p50_ms", "p99_ms", "target_forwards", "tokens", "lists_equal", "lists_per_s")
    }
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line][:3] for line in lines[:3]] == [
        ["3", "atspeed/x", "none"],
        ["3", "atspeed/x", "trie"],
        ["3", "atspeed/x", "beam:9"],
    ]
    # A rival asked one at a time is held against our plain search asked one at a time.
    assert [line[-1].strip() for line in lines if "vllm" in line[1]] == ["5.00", "5.00"]
    assert "add 1.5 ms at p50" in text
    assert "| system, plan | K = 3 | K = 5 |" in tables.read_text()
    assert "| atspeed/x, beam:9 | 10.0 / 20.0 (1.00x) | 10.0 / 20.0 (1.00x) |" in tables.read_text()
    assert "| vllm | 50.0 / 100.0 (5.00x) | 50.0 / 100.0 (5.00x) |" in tables.read_text()
    assert "| atspeed/x, beam:9 | 100 | 100 |" in tables.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_list_behind_a_cached_prompt_is_told_from_one_without(capsys: pytest.CaptureFixture[str]):
    cold = row("atspeed/x", "none", 3, 1, 10.0)
    bench_run.show(Report([cold, replace(cold, cached=True, p50_ms=5.0)], 1.5, 1))
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [(line[1].strip(), line[-1].strip()) for line in lines] == [("atspeed/x", "1.00"), ("atspeed/x, cached", "0.50")]


def test_without_a_model_random_ones_are_made_draft_included(runs: list[Run], bench: Callable[..., str]):
    bench("--shape", "tiny", "--k", "5", "--engines", "transformers", "--requests", "4", "--warm-up", "2")
    (run,) = runs
    assert run.models.plans[0] == "none"
    assert any(plan.startswith("beam:") for plan in run.models.plans)
    assert run.hosts == ["transformers"]
    assert len(run.histories) == 4 + 2


def test_a_trace_is_recorded_without_timing_anything(runs: list[Run], bench: Callable[..., str], tmp_path: Path):
    path = tmp_path / "trace.json"
    flags = ("--requests", "3", "--warm-up", "0", "--threads", "1", "--record-trace", str(path))
    bench("--shape", "tiny", "--k", "3", "--plans", "none,trie,beam:6", *flags)
    trace = Trace.load(path)
    assert [(run.plan, len(run.requests)) for run in trace.runs] == [("none", 3), ("trie", 3), ("beam:6", 3)]
    assert not runs


def test_all_systems_are_measured_and_ended(bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    others = multiprocessing.active_children()
    # vLLM alone would take most of a minute to start.
    monkeypatch.setattr(bench_run, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_run, "OVERHEAD_REQUESTS", 2)
    monkeypatch.setattr(interleaved, "SETTLE_SECONDS", 0)
    # Interpreters that have imported the model libraries; `test_interleaved.py` starts one anew.
    monkeypatch.setattr(bench_run, "measure", partial(bench_run.measure, processes=FORKING))
    monkeypatch.setattr(http_system, "ServerProcess", ForkedServer)
    flags = ("--requests", "2", "--warm-up", "1", "--threads", "1", "--json", str(tmp_path / "rows.json"))
    bench("--shape", "tiny", "--k", "3", "--plans", "none,beam:6", "--concurrency", "1,2", "--engines", "transformers", *flags)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["system"], row["plan"], row["concurrency"], row["cached"]) for row in rows] == [
        *(("atspeed/transformers", plan, concurrency, False) for concurrency in (1, 2) for plan in ("none", "beam:6")),
        *(("atspeed/transformers", plan, 1, True) for plan in ("none", "beam:6")),
        ("atspeed/http", "none", 1, False),
        ("transformers", "none", 1, False),
    ]
    cold, cached = (next(row["tokens"] for row in rows if row["plan"] == "none" and row["cached"] == warm) for warm in (False, True))
    assert cached < cold / 2
    assert all(row["lists_equal"] == "2/2" and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows)
    assert set(multiprocessing.active_children()) <= set(others)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--target", "/x"], "--target and --catalog go together."),
        (["--draft", "/x"], "--draft needs --target"),
        (["--k", "3,0"], "--k takes whole numbers from 1 to 256, separated by commas, got '3,0'."),
        (["--k", "300"], "--k takes whole numbers from 1 to 256, separated by commas, got '300'."),
        (["--concurrency", "many"], "--concurrency takes whole numbers from 1 on"),
        (["--plans", "guess"], "There is no plan 'guess'"),
        (["--plans", "beam:5", "--k", "10"], "The plan beam:5 drafts fewer prefixes than the 10"),
        (["--target", "/x", "--catalog", "/y", "--plans", "beam:40"], "the plan beam:40 needs a draft model: give --draft."),
        (["--target", "/x", "--catalog", "/no/such/file"], "The catalog /no/such/file cannot be read: No such file or directory."),
        (["--shape", "huge"], "there is no shape 'huge'"),
        (["--engines", "abacus"], "There is no engine 'abacus': choose vllm, transformers."),
        (["--shape", "tiny", "--data", "/no/such/folder"], "/no/such/folder holds no interaction data"),
    ],
)
def test_what_cannot_be_measured_gets_one_sentence(flags: list[str], sentence: str):
    result = runner.invoke(app, ["bench", "--force", *flags], env={"COLUMNS": "300"})
    assert result.exit_code != 0
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output


def test_a_busy_machine_is_refused(runs: list[Run], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interleaved, "busy_share", lambda: 0.4)
    result = runner.invoke(app, ["bench", "--shape", "tiny"])
    assert result.exit_code == 1
    assert "Other work takes 40% of this machine" in result.stderr
    assert not runs


def test_real_users_are_asked_with_what_came_before_their_test_items(tmp_path: Path):
    catalog = random_catalog(items=50)
    names = [f"item-{number}" for number in range(30)]
    lines = [{"user": f"u{user}", "item": name, "timestamp": when} for user in range(6) for when, name in enumerate(names[: 5 * user])]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    histories = held_out_histories(tmp_path, catalog, tmp_path / "random target", count=3)
    # The user without events has none; the last event of each other one is its test item.
    assert histories == [list(range(4)), list(range(14)), list(range(4, 24))]
    assert random_histories(50, 2, 7) == random_histories(50, 2, 7)


def test_test_users_are_those_of_the_split_that_the_target_was_trained_with(tmp_path: Path):
    """By another split a target is asked what it has learnt: of the first user everything."""
    data, target, untold = tmp_path / "data", tmp_path / "target", tmp_path / "untold"
    for folder in (data, target, untold):
        folder.mkdir()
    lines = [{"user": f"u{time // 5}", "item": f"item-{time}", "timestamp": time} for time in range(10)]
    (data / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    catalog = random_catalog(items=50)
    last, newest = [[0, 1, 2, 3], [5, 6, 7, 8]], [[5, 6, 7, 8]]
    assert held_out_histories(data, catalog, untold, None) == last
    (target / "training.json").write_text(json.dumps({"settings": {"split": "global-time", "min_items": 1, "label_kind": None}}))
    assert held_out_histories(data, catalog, target, None) == newest
    (data / "prepare.json").write_text(json.dumps({"split": "global-time"}))
    assert held_out_histories(data, catalog, untold, None) == newest
    (target / "training.json").write_text(json.dumps({"settings": {"split": "leave-one-out", "min_items": 6}}))
    with pytest.raises(InteractionError, match="No user has 6 interactions"):
        held_out_histories(data, catalog, target, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {"min_items": "six"}}'])
def test_a_target_whose_record_is_damaged_is_a_sentence(text: str, tmp_path: Path):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(SetupError, match=r"training\.json does not say how the target was trained: .*, or remove the file\.$"):
        held_out_histories(tmp_path, random_catalog(items=5), tmp_path, None)
