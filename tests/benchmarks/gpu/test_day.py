"""`make gpu-day`, rehearsed: results come line by line, survive kills, and are not measured twice."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.day import __main__ as day
from benchmarks.gpu.day import lists, measure
from benchmarks.gpu.day.device import check_kernel
from benchmarks.gpu.day.parts import PARTS, Part
from benchmarks.gpu.day.report import markdown
from benchmarks.gpu.day.results import AGAIN, FINISHED, Measured, Results
from benchmarks.gpu.day.scale import full, rehearsal
from benchmarks.gpu.day.scripted import time_long, time_paper
from benchmarks.gpu.scripted_run import Case, ScriptedEngine, room_for
from benchmarks.systems.shapes import make_identifiers
from drafting.errors import SetupError
from drafting.plans.drafters import BeamDrafter
from drafting.trie.item_trie import ItemTrie
from tests.benchmarks.gpu import few_libraries
from tests.benchmarks.gpu.test_run import ROOT, timing
from tests.waiting import wait_until
from verification.engine import calibration
from verification.hosts.graphs import GraphCounts

CPU = torch.device("cpu")
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"


def test_a_line_that_was_cut_off_is_no_result_and_spoils_none(tmp_path: Path) -> None:
    results = Results(tmp_path / "deep" / "results.jsonl")
    assert results.cases("paper") == set()
    assert results.ended("paper") is None
    results.add("paper", Measured("k 1", [{"ms": 1.0}]))
    whole = results.path.read_bytes()
    results.add("paper", Measured("k 3", [{"ms": 3.0}]))
    for length in range(len(whole) + 1, len(results.path.read_bytes())):
        cut = Results(tmp_path / f"cut-{length}.jsonl")
        cut.path.write_bytes(results.path.read_bytes()[:length])
        assert cut.cases("paper") == {"k 1"}
        cut.add("paper", Measured("k 5", [{"ms": 5.0}]))
        cut.end("paper", FINISHED, 1.0)
        # A line of which only its end is missing is all there once another follows.
        assert {"k 1", "k 5"} <= cut.cases("paper") <= {"k 1", "k 3", "k 5"}
        assert cut.ended("paper") == FINISHED


# Waits for ever when the first case has been measured.
WAITING = """
import signal
from benchmarks.gpu.day.results import Results
def wait(results, *arguments, add=Results.add):
    add(results, *arguments)
    signal.pause()
Results.add = wait
"""


def start(folder: Path, *flags: str, code: str = "") -> subprocess.Popen[bytes]:
    """Runs where nothing is installed but torch, transformers and numpy; each process begins with some code."""
    bare = folder / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "sitecustomize.py").write_text(f"{few_libraries.only()}\n{code}")
    command = [sys.executable, "-m", "benchmarks.gpu.day", "--rehearse", "--into", str(folder), *flags]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{bare}{os.pathsep}{ROOT}"}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=settings)


def test_a_killed_run_keeps_what_it_has_measured_and_the_next_one_goes_on(tmp_path: Path) -> None:
    parts = ("--only", "exactness")
    results = Results(tmp_path / "results.jsonl")
    run = start(tmp_path, *parts, code=WAITING)
    try:
        wait_until(lambda: results.cases("exactness") != set() or run.poll() is not None)
        (child,) = children_of(run.pid)
    finally:
        # Nothing can be done about this one.
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_until(lambda: not is_running(child))
    kept = results.measured("exactness")
    assert [measured.case for measured in kept] == ["float32"]
    assert results.ended("exactness") is None
    assert start(tmp_path, *parts).wait() == 0
    assert results.measured("exactness")[:1] == kept
    assert [measured.case for measured in results.measured("exactness")] == ["float32", "bfloat16", "bfloat16, exact"]
    assert results.ended("exactness") == FINISHED
    text = (tmp_path / "gpu.md").read_text()
    assert text.count("| float32 | transformers' generate | 6 | 6 | 0 | 0 | 0 |") == 1
    assert "Rehearsed with small sizes" in text


def test_every_part_measures_its_cases_once_and_only_those_that_are_missing() -> None:
    """The two that take longest to be made are left to the test above and to the rehearsal."""
    scale = rehearsal(CPU)
    for name in ("device", "nvidia", "paper"):
        module, _, function = PARTS[name].measure.partition(":")
        measure = getattr(import_module(f"benchmarks.gpu.day.{module}"), function)
        measured = {one.case: one.rows for one in measure(scale, set())}
        assert measured
        assert all(rows for rows in measured.values())
        assert not [row for rows in measured.values() for row in rows if "left out" in row]
        assert list(measure(scale, set(measured))) == []
        last = list(measured)[-1]
        assert [one.case for one in measure(scale, set(measured) - {last})] == [last]
        if name == "paper":
            plans = [row["plan"] for row in measured["prompt 16, batch 1, k 3"]]
            assert plans == ["none", "auto@100", "trie", "relaxed none", "relaxed trie"]


def test_lists_that_a_failed_draft_has_no_part_in_are_not_told_as_drafted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: invalid argument")

    # The last way, behind which no other plan asks for the draft.
    monkeypatch.setattr(lists, "WAYS", {"both": lists.WAYS["both"]})
    monkeypatch.setattr(BeamDrafter, "propose", fail)
    with pytest.raises(SetupError, match=r"^Lists with the plan beam:40\+children can't be compared: the draft has failed\.$"):
        list(lists.compare_lists(rehearsal(CPU), set()))


def test_all_searches_of_the_full_size_have_room_and_a_trace() -> None:
    scale = full(CPU)
    for shape in (scale.wide, scale.paper, scale.long, scale.graphs):
        trie = ItemTrie.build(make_identifiers(shape.shape.catalog))
        assert all(room_for(trie, case) for case in shape.cases)
        assert trie.depth == shape.trace.depth
    assert all(scale.paper.trace.find("auto@300", case.k) for case in scale.paper.cases)
    assert sum(part.seconds for name, part in PARTS.items() if name != "vllm") <= 9 * 60


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as the day runs them, whose process does what no part should."""
    code = {
        "device": "import time; time.sleep(600)",
        "nvidia": "import os; os._exit(2)",
        "kernel": "import os; os._exit(7)",
        "flashrec": "import sys; from pathlib import Path; from benchmarks.gpu.day.results import *; results = Results(Path(sys.argv[1])); "
        "results.end('flashrec', FINISHED if results.ends('flashrec') else AGAIN, 0)",
        "paper": "import sys; from pathlib import Path; from benchmarks.gpu.day.results import *; results = Results(Path(sys.argv[1])); "
        "results.add('paper', Measured('k 1', [{'ms': 1.5, 'k': 1}])); results.end('paper', FINISHED, 0)",
    }
    popen = subprocess.Popen

    def run(command: list[str], **settings: object) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", code[command[3]], command[4]], **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(day.subprocess, "Popen", run)
    monkeypatch.setattr(day, "LEAST", 0.0)
    monkeypatch.setitem(PARTS, "device", Part("device", 0.5, "Device", "", "device:describe"))


@pytest.mark.usefixtures("stubborn")
def test_what_a_part_does_harms_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "device", "kernel", "paper"]) == 1
    results = Results(tmp_path / "results.jsonl")
    assert results.ended("device") == "It was ended after 0 s: run it again."
    assert results.ended("kernel") == "Its process ended with status 7."
    assert results.ended("paper") == FINISHED
    text = (tmp_path / "gpu.md").read_text()
    assert text in capsys.readouterr().out
    assert "Not measured to the end. Its process ended with status 7." in text
    assert "| 1.5 | 1 |" in text
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "paper"]) == 0
    assert len(results.measured("paper")) == 1
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "flashrec"]) == 0
    assert results.ends("flashrec") == 2
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "nvidia", "graphs"]) == 1
    assert results.ended("nvidia") is results.ended("graphs") is None


def test_a_part_whose_time_was_over_goes_on_in_what_the_others_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(part: Part, results: Results, *_: object) -> bool:
        asked.append(part.name)
        is_cut = (part.name, asked.count(part.name)) == ("kernel", 1)
        results.end(part.name, f"{day.CUT} 60 s: run it again." if is_cut else FINISHED, 60.0)
        return True

    monkeypatch.setattr(day, "_run", run)
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "kernel", "paper"]) == 0
    assert asked == ["kernel", "paper", "kernel"]
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "kernel", "paper"]) == 0
    assert asked == ["kernel", "paper", "kernel"]


@pytest.mark.parametrize("kind", [RuntimeError, Exception])
def test_what_the_device_throws_is_a_result(kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise kind("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("benchmarks.gpu.day.device.check_kernel", fail)
    with pytest.raises(kind):
        measure.main(["kernel", str(tmp_path / "results.jsonl"), "--rehearse"])
    assert Results(tmp_path / "results.jsonl").ended("kernel") == f"Failed: {kind.__name__}: CUDA error: no kernel image is available"


def test_a_kernel_that_can_not_be_run_costs_no_other_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        if query.dtype == torch.float16:
            raise Exception("out of resource: shared memory")
        return query

    monkeypatch.setattr("benchmarks.gpu.day.device.tree_attention", attend)
    monkeypatch.setattr("benchmarks.gpu.day.device.seconds_of", lambda work: 1.0)
    rows = [row for measured in check_kernel(rehearsal(CPU), set()) for row in measured.rows]
    assert {row["precision"] for row in rows if "failed" not in row} == {"bfloat16", "float32"}
    assert {row["precision"] for row in rows if row.get("failed") == "Exception: out of resource: shared memory"} == {"float16"}


def test_what_the_kernel_computes_is_told_to_be_finite_and_not_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        return query / 0 if query.dtype == torch.float16 else query

    monkeypatch.setattr("benchmarks.gpu.day.device.tree_attention", attend)
    monkeypatch.setattr("benchmarks.gpu.day.device.seconds_of", lambda work: 1.0)
    rows = [row for measured in check_kernel(rehearsal(CPU), set()) for row in measured.rows]
    assert {(row["precision"], row["finite"]) for row in rows} == {("bfloat16", True), ("float16", False), ("float32", True)}


def test_a_kernel_that_costs_the_device_is_told_and_a_new_process_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[bool] = []

    def attend(query: torch.Tensor, *others: Any) -> torch.Tensor:
        if query.dtype == torch.float16:
            lost.append(True)
            raise RuntimeError(ILLEGAL)
        return query

    monkeypatch.setattr("benchmarks.gpu.day.device.tree_attention", attend)
    monkeypatch.setattr("benchmarks.gpu.day.device.seconds_of", lambda work: 1.0)
    monkeypatch.setattr("benchmarks.gpu.day.device.is_lost", lambda device: bool(lost))
    results = Results(tmp_path / "results.jsonl")
    # Prompts and batches; what is behind the last of these is measured by one process more.
    for is_lost in (*[True] * 4, False):
        lost.clear()
        assert measure.main(["kernel", str(results.path), "--rehearse"]) == int(is_lost)
        assert results.ended("kernel") == (AGAIN if is_lost else FINISHED)
    rows = [row for measured in results.measured("kernel") for row in measured.rows]
    assert [row["precision"] for row in rows] == ["bfloat16", "float16", "float32"] * 4
    failed = [(row["precision"], row["failed"]) for row in rows if "failed" in row]
    assert failed == [("float16", "RuntimeError: CUDA error: an illegal memory access was encountered")] * 4


def test_a_case_that_costs_the_device_is_told_and_a_new_process_goes_on_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time, results = ScriptedEngine.time, Results(tmp_path / "results.jsonl")

    def lose(engine: ScriptedEngine, case: Case, *more: Any, **named: Any) -> Any:
        if case.k == 3:
            raise RuntimeError(ILLEGAL)
        return time(engine, case, *more, **named)

    def go_on() -> None:
        for measured in time_paper(rehearsal(CPU), results.cases("paper")):
            results.add("paper", measured)

    monkeypatch.setattr(calibration, "REPEATS", 1)
    monkeypatch.setattr(ScriptedEngine, "time", lose)
    with pytest.raises(SetupError, match=AGAIN):
        go_on()
    go_on()
    assert [measured.case for measured in results.measured("paper")] == ["prompt 16, batch 1, k 3", "prompt 16, batch 1, k 1"]
    told = "* failed: prompt 16, batch 1, k 3: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert told in markdown(results, rehearse=True).splitlines()


def test_a_part_that_can_not_be_imported_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "kernel", Part("kernel", 1, "Kernel", "", "no_such_file:check"))
    with pytest.raises(ModuleNotFoundError):
        measure.main(["kernel", str(tmp_path / "results.jsonl"), "--rehearse"])
    assert (Results(tmp_path / "results.jsonl").ended("kernel") or "").startswith("Failed: ModuleNotFoundError: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a device that has no CUDA graphs")
def test_after_graphs_were_refused_a_new_process_measures_without(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    assert measure.main(["graphs", str(results.path), "--rehearse"]) == 1
    assert results.cases("graphs") == {"graphs"}
    assert results.ended("graphs") == AGAIN
    assert day.main(["--rehearse", "--into", str(tmp_path), "--only", "graphs"]) == 0
    assert [measured.case for measured in results.measured("graphs")] == ["graphs", "prompt 16, batch 1, k 3"]


def test_the_report_says_how_many_forwards_graphs_have_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [[GraphCounts(90, 9)] * 2, [GraphCounts(12, 1), GraphCounts(6, 0)]]
    monkeypatch.setattr(calibration, "REPEATS", 1)
    monkeypatch.setattr(ScriptedEngine, "graph_counts", lambda engine: counts.pop(0))
    (measured,) = time_long(rehearsal(CPU), set())
    results = Results(tmp_path / "results.jsonl")
    results.add("graphs", measured)
    lines = [line for line in markdown(results, rehearse=True).splitlines() if line.startswith("* graphs: ")]
    assert lines == [
        "* graphs: prompt 48, batch 1, k 5: 12 of 13 forwards of the target were replayed.",
        "* graphs: prompt 48, batch 1, k 5: 6 of 6 forwards of the draft were replayed.",
    ]


def test_results_of_another_machine_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Results(tmp_path / "results.jsonl").add("device", Measured("device", [{"device": "a faster one"}]))
    assert measure.main(["paper", str(tmp_path / "results.jsonl"), "--rehearse"]) == measure.USELESS == day.USELESS
    assert "is of another machine (a faster one)" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_how_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["device", str(tmp_path / "results.jsonl")]) == measure.USELESS
    assert "try the run with --rehearse" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_promises_are_judged_in_the_report_of_a_real_run(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    row = {**timing("qwen3-1.7b, three levels", 1000, 8, 256, "none", 79.0, 1.0).__dict__}
    results.add("nvidia", Measured("prompt 1000, batch 8, k 256", [row, {"left out": "the plan trie did not fit."}]))
    text = markdown(results, rehearse=False)
    assert "* Kept: Eight searches of width 256 after 1,000 tokens take 79.0 ms (none)" in text
    assert "* left out: the plan trie did not fit." in text
    assert text.count("It has not begun, or was killed.") == len(PARTS)
    assert "Kept" not in markdown(results, rehearse=True)


def test_the_process_that_watches_needs_no_torch() -> None:
    code = "import sys, benchmarks.gpu.day.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
