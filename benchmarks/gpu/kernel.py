"""Tree attention against what the device can do at best: `python -m benchmarks.gpu.kernel`.

Its floor is the larger of two times: that of reading every key, value and query once and writing the result, and that of the arithmetic
of what queries see. What the device can read and compute a second is measured beside it, by a copy and by a product of matrices. On a GPU
recordings are timed: launching from Python takes longer than most of these kernels. Needs torch, transformers and numpy only.

Invariant: one call after another reads another layer's keys and values, together four times what the device's last cache holds, as a model
does.
"""

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from benchmarks.gpu.report import machine
from benchmarks.gpu.timing import failure
from benchmarks.markdown import markdown_head, markdown_row
from benchmarks.systems.shapes import SHAPES, ModelShape
from drafting.beam.model import AttentionLayout, build_layout
from verification.hosts.attention import tree_attention
from verification.hosts.checkpoint import DTYPES
from verification.hosts.graphs import CudaRecorder, Run

logger = logging.getLogger(__name__)

COLUMNS = ("shape", "prompt", "batch", "µs", "memory floor, µs", "arithmetic floor, µs", "of the higher floor")
# The fewest layers, and how many times what the last cache of a GPU holds their keys and values are together.
LAYERS, BEYOND = 8, 4
# Work is timed in so many blocks of about so many seconds: a GPU is lent for minutes, and there are many cases.
BLOCKS, BLOCK_SECONDS = 5, 0.02
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


def row_of(name: str, prompt: int, batch: int, device: torch.device, best: Device) -> str:
    """The line of the table of one shape, prompt length and batch size: its times, or why there are none."""
    try:
        point = _time(name, SHAPES[name].target, prompt, batch, device, best)
    # A compiler's errors are no RuntimeErrors, and one kernel that a device can't run says nothing of the others.
    except Exception as error:
        logger.exception("%s, prompt %d, batch %d failed.", name, prompt, batch)
        if is_lost(device):
            raise
        return markdown_row((name, prompt, batch, failure(error), "", "", ""))
    times = (f"{time:.1f}" for time in (point.microseconds, point.memory_floor, point.arithmetic_floor))
    return markdown_row((name, prompt, batch, *times, f"{point.share:.0%}"))


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


def is_lost(device: torch.device) -> bool:
    """True if a GPU is of no more use to this process, as after a kernel that has read beyond its memory; it is waited for."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _time(name: str, shape: ModelShape, prompt: int, batch: int, device: torch.device, best: Device) -> Point:
    slots, layout = tree_layout(prompt, batch, device)
    head_size, dtype = shape.head_size or shape.hidden // shape.heads, DTYPES[shape.dtype]
    tokens, columns = len(slots), layout.keys.shape[1]
    # What is masked need not be computed: a node sees its prompt and its path.
    seen = int(layout.mask.sum())
    query = torch.randn(tokens, shape.heads, head_size, device=device).to(dtype)
    key, value = (torch.randn(tokens, shape.key_value_heads, head_size, device=device).to(dtype) for _ in range(2))
    caches = layers_of(torch.randn(batch * columns, shape.key_value_heads, 2 * head_size, device=device).to(dtype))

    def forward() -> Tensor:
        for cache in caches:
            attended = tree_attention(query, key, value, cache, slots, [layout], head_size**-0.5)
        return attended

    moved = caches[0].nbytes + 2 * (query.nbytes + key.nbytes + value.nbytes)
    operations = 4 * seen * shape.heads * head_size
    return Point(
        name,
        prompt,
        batch,
        microseconds=1e6 * seconds_of(recorded(forward, device)) / len(caches),
        memory_floor=1e6 * moved / best.bytes_per_second,
        arithmetic_floor=1e6 * operations / best.flops_per_second[dtype],
    )


def seconds_of(work: Callable[[], object]) -> float:
    """The median time of some work, the device waited for."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    # Each call of `timeit` warms up before.
    calls = max(1, math.ceil(BLOCK_SECONDS / timer.timeit(1).median))
    return float(median(timer.timeit(calls).median for _ in range(BLOCKS)))


def recorded(work: Run, device: torch.device) -> Run:
    """Some work without the time that it takes to launch it: on a GPU a recording of it, elsewhere the very same."""
    return CudaRecorder(device)(work) if device.type == "cuda" else work


def main(arguments: Sequence[str]) -> int:
    """Print a Markdown table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    large = device.type == "cuda"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.kernel", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default="llama-7b,qwen3-1.7b" if large else "small", help="shapes (default: %(default)s)")
    parser.add_argument("--prompt", default="104,1000,5000" if large else "104", help="prompt tokens (default: %(default)s)")
    parser.add_argument("--batch", default="1,8,32" if large else "1,8", help="requests at once (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, line by line")
    options = parser.parse_args(arguments)
    names = options.shape.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"there is no shape {unknown[0]!r}: choose {', '.join(SHAPES)}.")
    prompts, batches = ([int(number) for number in text.split(",")] for text in (options.prompt, options.batch))
    with ExitStack() as files:
        outputs = [sys.stdout]
        if options.markdown:
            options.markdown.parent.mkdir(parents=True, exist_ok=True)
            outputs.append(files.enter_context(options.markdown.open("w")))
        best = measure_device(device, 8192 if large else 512)
        layer = "one layer, recorded" if large else "one layer"
        head = f"{machine(device)}; a copy moves {best.bytes_per_second / 1e9:.0f} GB/s; 40 x 3 nodes a request, {layer}.\n"
        rows = (row_of(*case, device, best) for case in product(names, prompts, batches))
        for line in chain([head], markdown_head(COLUMNS), rows):
            for output in outputs:
                print(line, file=output, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
