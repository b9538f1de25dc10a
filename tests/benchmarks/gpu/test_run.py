"""`make bench-gpu` on a CPU with the tiny shape, and that it needs torch, transformers and numpy only."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import run as gpu
from benchmarks.gpu import scripted_models, scripted_run
from benchmarks.gpu.promises import judge_promises
from benchmarks.gpu.scripted_models import ScriptedPlan, Stage
from benchmarks.gpu.scripted_run import Case, ScriptedEngine
from benchmarks.gpu.timing import Timing
from benchmarks.systems.shapes import SHAPES, make_identifiers
from benchmarks.systems.trace import Trace, TraceRound, TraceRun
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.trie.item_trie import ItemTrie
from tests.benchmarks.gpu import few_libraries
from verification.engine import calibration
from verification.hosts.checkpoint import HostError
from verification.hosts.decoder_layers import DecoderLayers
from verification.hosts.head import LinearHead

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What forwards cost takes most of a small run, and is not what is tested here."""
    monkeypatch.setattr(calibration, "REPEATS", 1)


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    script = (TraceRound((6, 6, 6), 1, 2, 19), TraceRound((5,), 1, 0, 7))
    path = tmp_path / "trace.json"
    Trace("two made-up users", 4, (TraceRun("beam:6", 3, 6, (script, script)),)).save(path)
    return path


def bench(*flags: str, trace: Path) -> None:
    gpu.main(
        [
            "--device",
            "cpu",
            "--shape",
            "tiny",
            "--prompt",
            "16",
            "--k",
            "3,5",
            "--requests",
            "2",
            "--turns",
            "2",
            "--trace",
            str(trace),
            *flags,
        ]
    )


def test_it_reports_every_recorded_plan_and_says_where_acceptance_comes_from(trace_file: Path, tmp_path: Path, capsys):
    bench("--batch", "1,2", "--json", str(tmp_path / "new" / "gpu.json"), "--markdown", str(tmp_path / "gpu.md"), trace=trace_file)
    report = json.loads((tmp_path / "new" / "gpu.json").read_text())
    found = [(row["batch"], row["k"], row["plan"], row["target_forwards"], row["draft_forwards"]) for row in report["timings"]]
    assert found == [
        (batch, *row)
        for batch in (1, 2)
        for row in [(3, "none", 4, 0), (3, "beam:6", 2, 4), (3, "trie", 2, 0), (5, "none", 4, 0), (5, "trie", 2, 0)]
    ]
    assert report["command"].startswith("python -m benchmarks.gpu.run --device cpu --shape tiny --prompt 16 ")
    text = (tmp_path / "gpu.md").read_text()
    assert text in capsys.readouterr().out
    assert "taken from an acceptance trace (two made-up users)" in text
    assert "what a planner takes to decide and to learn is in no time" in text
    assert torch.__version__ in text
    assert "| tiny | 16 | 1 | 3 | beam:6 |" in text
    assert "tiny: the trace has no searches of k 5: there only plans that need none are timed, none and trie." in text


def test_heads_of_large_vocabularies_make_no_more_logits_than_those_of_trained_models(
    trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The draft overlooks prefixes of the first search and none of the second."""
    monkeypatch.setattr("drafting.beam.continuations._WHOLE", 8)
    monkeypatch.setattr(LinearHead, "logits", None)
    monkeypatch.setattr(scripted_models, "PLACE", 2)
    asked: Counter[str] = Counter()
    for name in ("project", "log_normaliser"):
        own = getattr(LinearHead, name)
        monkeypatch.setattr(LinearHead, name, lambda *args, name=name, own=own: asked.update([name]) or own(*args))
    bench("--batch", "5", "--json", str(tmp_path / "gpu.json"), trace=trace_file)
    rows = json.loads((tmp_path / "gpu.json").read_text())["timings"]
    assert [(row["plan"], row["target_forwards"]) for row in rows if row["k"] == 3] == [("none", 4), ("beam:6", 2), ("trie", 2)]
    assert asked["log_normaliser"] >= 8
    assert asked["project"] >= asked["log_normaliser"]


class OutOfResources(Exception):
    """Triton's errors are no RuntimeErrors."""


@pytest.mark.parametrize(("fails", "kept"), [("trie", ["none", "beam:6"]), ("none", [])])
def test_a_plan_that_fails_costs_no_other_its_figures(
    fails: str, kept: list[str], trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Failing(ScriptedPlan):
        def __init__(self, run: TraceRun, stage: Stage) -> None:
            if (run.k, run.plan) == (3, fails):
                raise OutOfResources("out of resource: shared memory\nReduce block sizes.")
            super().__init__(run, stage)

    monkeypatch.setattr(scripted_run, "ScriptedPlan", Failing)
    bench("--batch", "1", "--json", str(tmp_path / "gpu.json"), trace=trace_file)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["plan"] for row in report["timings"]] == [*kept, "none", "trie"]
    lost = f"tiny, prompt 16, batch 1, k 3, plan {fails} is left out. OutOfResources: out of resource: shared memory"
    assert lost in report["notes"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(OutOfResources("at 3:1"), "OutOfResources: at 3:1"), (HostError("Triton can't make the kernel."), "Triton can't make the kernel.")],
)
def test_a_shape_that_fails_costs_no_other_its_figures(
    error: Exception, told: str, trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(engine: ScriptedEngine, prompt: int) -> ForwardCosts:
        raise error

    monkeypatch.setattr(ScriptedEngine, "costs", fail)
    bench("--batch", "1", "--json", str(tmp_path / "gpu.json"), trace=trace_file)
    assert json.loads((tmp_path / "gpu.json").read_text())["notes"] == [f"tiny: the shape is left out from there on. {told}"]


def test_a_device_that_is_lost_is_told_in_the_report_and_tried_no_more(trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(engine: ScriptedEngine, prompt: int) -> ForwardCosts:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(ScriptedEngine, "costs", fail)
    monkeypatch.setattr(gpu, "is_lost", lambda device: True)
    bench("--shape", "tiny,small", "--batch", "1", "--json", str(tmp_path / "gpu.json"), trace=trace_file)
    assert json.loads((tmp_path / "gpu.json").read_text())["notes"] == [
        "tiny: the shape is left out from there on. RuntimeError: CUDA error: an illegal memory access was encountered",
        "This process can't use the device any more: what would follow is left out.",
    ]


def test_models_that_are_not_computed_as_they_are_served_are_told(trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DecoderLayers, "of", lambda *_: None)
    bench("--batch", "1", "--json", str(tmp_path / "gpu.json"), trace=trace_file)
    report = json.loads((tmp_path / "gpu.json").read_text())
    told = [note for note in report["notes"] if "transformers' own layers" in note]
    assert [note.partition(" was ")[0] for note in told] == ["tiny: the target", "tiny: the draft"]
    assert report["timings"]


def test_a_run_that_is_ended_has_written_the_cases_before(trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    time = ScriptedEngine.time

    def interrupted(engine: ScriptedEngine, case: Case, *more: Any, **named: Any) -> Any:
        if case.k == 5:
            raise KeyboardInterrupt
        return time(engine, case, *more, **named)

    monkeypatch.setattr(ScriptedEngine, "time", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench("--batch", "1", "--json", str(tmp_path / "gpu.json"), "--markdown", str(tmp_path / "gpu.md"), trace=trace_file)
    assert [row["plan"] for row in json.loads((tmp_path / "gpu.json").read_text())["timings"]] == ["none", "beam:6", "trie"]
    assert "| tiny | 16 | 1 | 3 | trie |" in (tmp_path / "gpu.md").read_text()


def test_graphs_are_refused_on_a_cpu(trace_file: Path):
    with pytest.raises(SystemExit, match="CUDA graphs need a GPU"):
        bench("--graphs", trace=trace_file)


def test_wide_beams_run_without_a_trace_as_many_at_once_as_the_engine_can(capsys):
    shape = ["--device", "cpu", "--wide", "--shape", "tiny", "--prompt", "16"]
    gpu.main([*shape, "--batch", "2,50", "--requests", "2", "--turns", "1"])
    out = capsys.readouterr().out
    for k in (50, 256):
        assert f"| tiny, three levels | 16 | 2 | {k} | none |" in out
        assert f"| tiny, three levels | 16 | 2 | {k} | trie |" in out
    assert "| tiny, three levels | 16 | 50 | 50 | none |" in out
    assert "an engine runs fewer wide searches at once; left out are prompt 16, batch 50, k 256." in out


def timing(shape: str, prompt: int, batch: int, k: int, plan: str, milliseconds: float, speed_up: float) -> Timing:
    return Timing(shape, prompt, batch, k, plan, 20, milliseconds, milliseconds, milliseconds, 2.0, 0.0, 100.0, 100.0, speed_up)


def test_promises_are_judged_by_the_cases_that_they_name():
    other = timing("small", 104, 1, 256, "none", 10.0, 1.0)
    four_levels = timing("qwen3-1.7b", 1000, 8, 256, "none", 85.0, 1.0)
    wide = timing("qwen3-1.7b, three levels", 1000, 8, 256, "none", 85.0, 1.0)
    assert judge_promises([other, four_levels]) == []
    (missed,) = judge_promises([other, wide])
    assert missed.startswith("MISSED: Eight searches of width 256 after 1,000 tokens take 85.0 ms (none)")
    (kept,) = judge_promises([wide, timing("qwen3-1.7b, three levels", 1000, 8, 256, "trie", 79.0, 1.08)])
    assert kept.startswith("Kept: Eight searches of width 256 after 1,000 tokens take 79.0 ms (trie)")
    planned = [timing("llama-7b", 104, 1, 20, "auto@300", 20.0, 1.9), timing("llama-7b", 104, 32, 20, "auto@10", 90.0, 0.97)]
    strict, least = judge_promises(planned)
    assert strict.startswith("Kept: llama-7b, prompt 104, k 20: the planner is 1.90 times")
    assert least.startswith("MISSED: Nowhere is the planner slower than 0.97 times")


def test_what_does_not_fit_is_left_out_with_a_sentence(trace_file: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(gpu, "free_memory", lambda device: 2**21)
    bench("--batch", "1,4000", trace=trace_file)
    out = capsys.readouterr().out
    assert "2 of 4 cases are left out." in out
    assert "| tiny | 16 | 1 | 3 | beam:6 |" in out


def test_what_takes_too_long_is_left_out_with_a_sentence(trace_file: Path, capsys):
    bench("--batch", "1", "--minutes", "0", trace=trace_file)
    assert "tiny: no time was left for 2 of 2 cases, from prompt 16, batch 1, k 3 on." in capsys.readouterr().out


@pytest.mark.parametrize(("batch", "chosen"), [(1, "auto@100"), (8, "auto@10"), (1000, "auto@10")])
def test_of_the_recorded_planners_that_of_the_likest_machine_is_followed(batch: int, chosen: str):
    script = (TraceRound((), 0, 0, 1),)
    runs = [TraceRun(name, 3, 0, (script,)) for name in ("auto@10", "trie", "auto@100", "auto@1000")]
    costs = ForwardCosts(CostCurve(fixed=0.02, per_token=0.0001))
    trie = ItemTrie.build(make_identifiers(SHAPES["tiny"].catalog))
    followed = gpu.runs_of(Trace("", 4, tuple(runs)), Case(16, batch, 3), trie, None, costs)
    assert [run.plan for run in followed] == ["none", "trie", chosen]
    assert followed[1].requests == (script,)
    assert [run.plan for run in gpu.runs_of(Trace("", 4, tuple(runs)), Case(16, batch, 3), trie, ["auto"], costs)] == ["none", chosen]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--shape", "huge"], "there is no shape 'huge' here: choose tiny, small, qwen3-0.6b-4l, qwen3-0.6b, llama-7b, qwen3-1.7b."),
        (["--shape", "tiger"], "there is no shape 'tiger' here: choose tiny, small, qwen3-0.6b-4l, qwen3-0.6b, llama-7b, qwen3-1.7b."),
        (["--k", "0"], "whole numbers from 1 on are wanted, got '0'"),
    ],
)
def test_wrong_flags_get_one_sentence(flags: list[str], sentence: str, trace_file: Path, capsys):
    with pytest.raises(SystemExit):
        bench(*flags, trace=trace_file)
    assert sentence in capsys.readouterr().err


def test_a_missing_trace_gets_one_sentence(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"The trace .* cannot be read: No such file or directory\."):
        bench(trace=tmp_path / "none.json")


def test_a_plan_that_the_trace_does_not_have_is_no_plan(trace_file: Path):
    with pytest.raises(SystemExit, match=r"There is no plan 'beam:9' in the trace: choose none, trie, beam:6\."):
        bench("--plans", "beam:6,beam:9", trace=trace_file)


def test_no_model_is_made_for_which_no_time_is_left(trace_file: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(gpu, "ScriptedEngine", None)
    bench("--batch", "1", "--minutes", "0", trace=trace_file)
    assert "tiny: no time was left for 2 of 2 cases" in capsys.readouterr().out


def test_a_part_of_make_bench_gpu_that_fails_costs_no_other_its_report(tmp_path: Path):
    script, into = tmp_path / "python.sh", tmp_path / "new"
    script.write_text('echo "$@" >> "$(dirname "$0")/asked"\ncase "$2" in *.kernel) exit 3;; esac\n')
    command = ["make", "bench-gpu", f"GPU_PYTHON=sh {script}", f"INTO={into}", "ARGS=--k 1"]
    # Of a `make` around these tests nothing is passed on.
    ended = subprocess.run(command, cwd=ROOT, check=False, env={"PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL)
    assert ended.returncode != 0
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert [words[1] for words in asked] == ["benchmarks.gpu.kernel", "benchmarks.gpu.run", "benchmarks.gpu.run"]
    assert asked[1][-2:] == ["--k", "1"]
    reports = [word for words in asked for word in words if word.startswith(str(into))]
    assert len(reports) == len(set(reports)) == 5
    assert sum(float(words[words.index("--minutes") + 1]) for words in asked[1:]) <= 8


def test_a_python_that_has_torch_is_chosen(tmp_path: Path):
    def chosen() -> str:
        command, path = ["make", "--dry-run", "gpu-day", f"BIN={tmp_path}/venv", "ARGS="], f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(command, cwd=ROOT, check=True, env={"PATH": path}, capture_output=True, text=True).stdout.partition(" ")[0]

    def has_torch(name: str, status: int) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)

    has_torch("python3.11", 1)
    has_torch("python3", 0)
    assert chosen() == "python3"
    has_torch("python3.11", 0)
    assert chosen() == "python3.11"
    has_torch("venv/python", 0)
    assert chosen() == f"{tmp_path}/venv/python"


def test_it_needs_torch_transformers_and_numpy_only(trace_file: Path):
    code = f"{few_libraries.only()}; import benchmarks.gpu.kernel; from benchmarks.gpu.run import main; main()"
    flags = ["--device=cpu", "--shape=tiny", "--prompt=16", "--k=3", "--batch=1", "--requests=1", "--turns=1", f"--trace={trace_file}"]
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True, env=os.environ, stdout=subprocess.DEVNULL)
