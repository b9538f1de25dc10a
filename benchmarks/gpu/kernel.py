"""Tree attention against what the device can do at best: `python -m benchmarks.gpu.kernel`.

Its floor is the larger of two times: that of reading every key, value and query once and writing the result, and that of the arithmetic.
What the device can read and compute a second is measured beside it, by a copy and by a product of matrices. Needs torch, transformers and
numpy only.

Invariant: one call after another reads another layer's keys and values, together four times what the device's last cache holds, as a model
does.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from benchmarks.gpu.report import machine
from benchmarks.markdown import markdown_head, markdown_row
from benchmarks.systems.shapes import SHAPES, ModelShape
from drafting.beam.model import AttentionLayout, build_layout
from verification.hosts.attention import tree_attention
from verification.hosts.checkpoint import DTYPES

COLUMNS = ("shape", "prompt", "batch", "µs", "memory floor, µs", "arithmetic floor, µs", "of the higher floor")
# The fewest layers, and how many times what the last cache of a GPU holds their keys and values are together.
LAYERS, BEYOND = 8, 4
# A tree of the paper's width: a beam of 40 at each of three depths.
WIDTH, DEPTH = 40, 3


@dataclass(frozen=True)
class Device:
    """The measured peak performance of a device.

    Attributes:
        bytes_per_second: read and written by a copy.
        flops_per_second: of a product of matrices, by type of number.
    """

    bytes_per_second: float
    flops_per_second: dict[torch.dtype, float]


@dataclass(frozen=True)
class Point:
    """One forward's attention in one layer: so many requests, each with a cached prompt and a tree of `WIDTH` times `DEPTH` nodes.

    Attributes:
        microseconds: of one layer.
        memory_floor, arithmetic_floor: the same at best.
    """

    shape: str
    prompt: int
    batch: int
    microseconds: float
    memory_floor: float
    arithmetic_floor: float

    @property
    def share(self) -> float:
        """The higher floor over the measured time: 1 is as good as can be."""
        return max(self.memory_floor, self.arithmetic_floor) / self.microseconds


def measure_device(device: torch.device, size: int) -> Device:
    """Time a copy of `size` squared numbers and products of matrices of that size."""
    flops = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size, device=device).to(dtype)
        flops[dtype] = 2 * size**3 / seconds_of(partial(torch.matmul, matrix, matrix))
    source = torch.zeros(size, size, device=device)
    target = torch.empty_like(source)
    return Device(2 * source.nbytes / seconds_of(lambda: target.copy_(source)), flops)


def points(names: Sequence[str], prompts: Sequence[int], batches: Sequence[int], device: torch.device, best: Device) -> Iterator[Point]:
    """Time every shape, prompt length and batch size."""
    for name in names:
        shape = SHAPES[name].target
        for prompt in prompts:
            for batch in batches:
                yield _time(name, shape, prompt, batch, device, best)


def tree_layout(prompt: int, batch: int, device: torch.device) -> tuple[Tensor, AttentionLayout]:
    """Slots and layout of requests whose prompts are cached and whose trees are scored; nodes hang from the node above them."""
    nodes = WIDTH * DEPTH
    columns = prompt + nodes
    node = np.arange(nodes)
    paths = prompt + np.stack([node % WIDTH + WIDTH * np.minimum(level, node // WIDTH) for level in range(DEPTH)], axis=1)
    keys = [np.arange(columns) + number * columns for number in range(batch)]
    slots = torch.from_numpy(np.concatenate([own[prompt:] for own in keys])).to(device)
    visible = torch.full((batch * nodes,), prompt, device=device)
    layout = build_layout(keys, [nodes] * batch, visible, torch.from_numpy(np.tile(paths, (batch, 1))).to(device))
    return slots, layout


def layers_of(cache: Tensor) -> list[Tensor]:
    """Keys and values of one layer and copies of them, so many that they can't all lie in the device's last cache."""
    count = max(LAYERS, math.ceil(BEYOND * last_cache_bytes(cache.device) / cache.nbytes))
    return [cache, *(cache.clone() for _ in range(count - 1))]


def last_cache_bytes(device: torch.device) -> int:
    """Bytes of a GPU's L2 cache; 0 for a CPU, of whose caches PyTorch does not tell."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 0


def _time(name: str, shape: ModelShape, prompt: int, batch: int, device: torch.device, best: Device) -> Point:
    slots, layout = tree_layout(prompt, batch, device)
    head_size, dtype = shape.head_size or shape.hidden // shape.heads, DTYPES[shape.dtype]
    tokens, columns = len(slots), layout.keys.shape[1]
    query = torch.randn(tokens, shape.heads, head_size, device=device).to(dtype)
    key, value = (torch.randn(tokens, shape.key_value_heads, head_size, device=device).to(dtype) for _ in range(2))
    caches = layers_of(torch.randn(batch * columns, shape.key_value_heads, 2 * head_size, device=device).to(dtype))

    def forward() -> None:
        for cache in caches:
            tree_attention(query, key, value, cache, slots, [layout], head_size**-0.5)

    moved = caches[0].nbytes + 2 * (query.nbytes + key.nbytes + value.nbytes)
    operations = 4 * tokens * columns * shape.heads * head_size
    return Point(
        name,
        prompt,
        batch,
        microseconds=1e6 * seconds_of(forward) / len(caches),
        memory_floor=1e6 * moved / best.bytes_per_second,
        arithmetic_floor=1e6 * operations / best.flops_per_second[dtype],
    )


def seconds_of(work: Callable[[], object]) -> float:
    """The median time of some work, the device waited for."""
    return float(Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=0.3).median)


def main(arguments: Sequence[str]) -> int:
    """Print a Markdown table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    large = device.type == "cuda"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.kernel", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default="llama-7b,qwen3-1.7b" if large else "small", help="shapes (default: %(default)s)")
    parser.add_argument("--prompt", default="104,1000,5000" if large else "104", help="prompt tokens (default: %(default)s)")
    parser.add_argument("--batch", default="1,8,32" if large else "1,8", help="requests at once (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = options.shape.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"there is no shape {unknown[0]!r}: choose {', '.join(SHAPES)}.")
    prompts, batches = ([int(number) for number in text.split(",")] for text in (options.prompt, options.batch))
    best = measure_device(device, 8192 if large else 512)
    print(f"{machine(device)}; a copy moves {best.bytes_per_second / 1e9:.0f} GB/s; 40 x 3 nodes a request, one layer.\n")
    print(*markdown_head(COLUMNS), sep="\n")
    for point in points(names, prompts, batches, device, best):
        times = (f"{time:.1f}" for time in (point.microseconds, point.memory_floor, point.arithmetic_floor))
        print(markdown_row((point.shape, point.prompt, point.batch, *times, f"{point.share:.0%}")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
