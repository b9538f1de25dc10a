"""What the kernel's benchmark times, and that its table says so. No figure of a shared machine is asserted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import kernel
from benchmarks.gpu.kernel import DEPTH, WIDTH, Device, Point, main, tree_layout
from benchmarks.systems.shapes import ModelShape

CPU = torch.device("cpu")


def test_nodes_see_their_own_prompt_and_their_ancestors():
    slots, layout = tree_layout(prompt=5, batch=2, device=CPU)
    nodes = WIDTH * DEPTH
    assert slots.tolist() == [*range(5, 5 + nodes), *range(10 + nodes, 10 + 2 * nodes)]
    seen = layout.mask[:, 0]
    for node in (0, WIDTH + 3, 2 * WIDTH + 7):
        path = [5 + node % WIDTH + WIDTH * level for level in range(node // WIDTH + 1)]
        for request in range(2):
            assert seen[request, node].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, *path]


def test_the_higher_floor_counts():
    assert Point("x", 1, 1, microseconds=10.0, memory_floor=6.0, arithmetic_floor=2.0).share == pytest.approx(0.6)
    assert Point("x", 1, 1, microseconds=10.0, memory_floor=1.0, arithmetic_floor=8.0).share == pytest.approx(0.8)


def test_the_arithmetic_floor_counts_what_nodes_see(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "seconds_of", lambda work: 1.0)
    best = Device(bytes_per_second=1.0, flops_per_second={torch.float32: 1e6})
    point = kernel._time("x", ModelShape(32, 1, 2, 1, 64), prompt=5, batch=3, device=CPU, best=best)
    # Each level's nodes see the prompt and as many nodes as they are deep.
    seen = 3 * sum(WIDTH * (5 + depth) for depth in range(1, DEPTH + 1))
    assert point.arithmetic_floor == pytest.approx(4 * seen * 2 * 16)


@pytest.mark.parametrize(("cache_bytes", "layers"), [(0, 8), (10_000, 8), (240_000, 60)])
def test_layers_do_not_all_lie_in_the_devices_cache(cache_bytes: int, layers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "last_cache_bytes", lambda device: cache_bytes)
    found = kernel.layers_of(torch.randn(1000, 1, 4))
    assert len(found) == len({layer.data_ptr() for layer in found}) == layers
    assert sum(layer.nbytes for layer in found) >= 4 * cache_bytes


def test_an_unknown_shape_gets_one_sentence(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--shape", "nonsense"])
    assert "there is no shape 'nonsense': choose tiny, small," in capsys.readouterr().err


def test_the_table_has_a_line_per_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--shape", "tiny", "--prompt", "8,16", "--batch", "1", "--markdown", str(tmp_path / "new" / "kernel.md")]) == 0
    text = (tmp_path / "new" / "kernel.md").read_text()
    assert text == capsys.readouterr().out
    lines = [line.split("|")[1:5] for line in text.splitlines() if line.startswith("| tiny")]
    assert [[cell.strip() for cell in line][:3] for line in lines] == [["tiny", "8", "1"], ["tiny", "16", "1"]]
    assert all(float(line[3]) > 0 for line in lines)


def test_a_case_that_fails_costs_no_other_its_times(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    time = kernel._time

    def failing(name: str, shape: ModelShape, prompt: int, *others: Any) -> Point:
        if prompt == 8:
            raise Exception("out of resource: shared memory")
        return time(name, shape, prompt, *others)

    monkeypatch.setattr(kernel, "_time", failing)
    assert main(["--shape", "tiny", "--prompt", "8,16", "--batch", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert lines[0] == "| tiny | 8 | 1 | Exception: out of resource: shared memory |  |  |  |"
    assert lines[1].startswith("| tiny | 16 | 1 | ")
    assert lines[1].endswith("% |")


def test_on_a_gpu_a_recording_is_timed(monkeypatch: pytest.MonkeyPatch):
    def work() -> torch.Tensor:
        return torch.zeros(1)

    replay = object()
    monkeypatch.setattr(kernel, "CudaRecorder", lambda device: {work: replay}.get)
    assert kernel.recorded(work, torch.device("cuda")) is replay
    assert kernel.recorded(work, CPU) is work


def test_few_calls_are_timed_of_work_that_takes_long(monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Timer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def timeit(self, calls: int) -> SimpleNamespace:
            asked.append(calls)
            return SimpleNamespace(median=0.008)

    monkeypatch.setattr(kernel, "Timer", Timer)
    assert kernel.seconds_of(lambda: None) == 0.008
    assert asked == [1, 3, 3, 3, 3, 3]
