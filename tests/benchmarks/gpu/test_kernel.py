"""What the kernel's benchmark times, and that its table says so. No figure of a shared machine is asserted."""

import pytest
import torch

from benchmarks.gpu import kernel
from benchmarks.gpu.kernel import DEPTH, WIDTH, Point, main, tree_layout

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


def test_the_table_has_a_line_per_case(capsys: pytest.CaptureFixture[str]):
    assert main(["--shape", "tiny", "--prompt", "8,16", "--batch", "1"]) == 0
    lines = [line.split("|")[1:5] for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert [[cell.strip() for cell in line][:3] for line in lines] == [["tiny", "8", "1"], ["tiny", "16", "1"]]
    assert all(float(line[3]) > 0 for line in lines)
