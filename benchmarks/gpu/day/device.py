"""Parts about the device itself and about the kernel that this project brings to it."""

import logging
from collections.abc import Collection, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.day.results import AGAIN, Figures, Measured
from benchmarks.gpu.day.scale import Scale
from benchmarks.gpu.kernel import is_lost, layers_of, measure_device, recorded, seconds_of
from benchmarks.gpu.report import machine
from benchmarks.gpu.timing import failure
from drafting.array_types import IntArray
from drafting.beam.model import AttentionLayout, build_layout
from drafting.errors import SetupError
from verification.hosts.attention import HAS_TRITON, tree_attention
from verification.hosts.graphs import Run

logger = logging.getLogger(__name__)

DEPTH = 3
# Requests of unlike length, as many as share a forward on a busy machine, and one alone.
BATCHES = (1, 8)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def describe(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """The device, what runs it, and what it can do at best."""
    if "device" in done:
        return
    best = measure_device(scale.device, scale.matrix)
    row: Figures = {"device": machine(scale.device), "triton": _version("triton"), "vllm": _version("vllm")}
    row["copy, GB/s"] = round(best.bytes_per_second / 1e9)
    row |= {f"{_name(dtype)}, TFLOP/s": round(flops / 1e12, 2) for dtype, flops in best.flops_per_second.items()}
    yield Measured("device", [row])


def check_kernel(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """Tree attention as it runs here against the PyTorch reference in float64, and its time, layer after layer.

    Raises:
        SetupError: what was measured last has cost this process the device: a new one goes on behind it.
    """
    shapes, prompts, width = scale.kernel
    for sizes, prompt, batch, dtype in product(shapes, prompts, BATCHES, DTYPES):
        heads, key_value_heads, head_size = sizes
        case = f"{heads} heads, {key_value_heads} of keys, size {head_size}, prompt {prompt}, batch {batch}, {_name(dtype)}"
        if case in done:
            continue
        row = _row(sizes, prompt, batch, width, dtype, scale.device)
        lost = is_lost(scale.device)
        yield Measured(case, [row])
        if lost:
            raise SetupError(AGAIN)


def _row(sizes: tuple[int, int, int], prompt: int, batch: int, width: int, dtype: torch.dtype, device: torch.device) -> Figures:
    """One precision's figures, or why there are none."""
    row: Figures = {
        "heads, of keys, size": ", ".join(map(str, sizes)),
        "longest prompt": prompt,
        "batch": batch,
        "precision": _name(dtype),
    }
    try:
        for figures in _check(sizes, prompt, batch, width, dtype, device):
            row |= figures
        return row
    # A compiler's errors are no RuntimeErrors, and one kernel that a device can't run says nothing of the others.
    except Exception as error:
        logger.exception("%s", row)
        return row | {"failed": failure(error)}


def _check(sizes: tuple[int, int, int], prompt: int, batch: int, width: int, dtype: torch.dtype, device: torch.device) -> Iterator[Figures]:
    """What it computes, what it takes as it is launched from Python, and what it takes a device that it was recorded for."""
    heads, key_value_heads, head_size = sizes
    lengths = np.linspace(prompt, max(prompt // 2, 1), batch).astype(int)
    slots, layout = _trees(lengths, width, device)
    make = partial(torch.randn, device=device, generator=torch.Generator(device).manual_seed(0))
    query = make(len(slots), heads, head_size).to(dtype)
    key, value = (make(len(slots), key_value_heads, head_size).to(dtype) for _ in range(2))
    cache = make(int(slots.max()) + 1, key_value_heads, 2 * head_size).to(dtype)

    def attend(query: Tensor, cache: Tensor = cache) -> Tensor:
        return tree_attention(query, key, value, cache, slots, [layout], head_size**-0.5)

    layers = layers_of(cache)

    def forward() -> Tensor:
        for layer in layers:
            attended = attend(query, layer)
        return attended

    # Float64 is always computed by PyTorch's operations, on every device.
    exact, found = attend(query.double()), attend(query)
    yield {
        "computed by": "Triton" if HAS_TRITON and device.type == "cuda" else "PyTorch",
        "largest difference": float((found.double() - exact).abs().max()),
        "finite": bool(found.isfinite().all()),
    }
    yield {"µs, launched": _microseconds(forward, len(layers))}
    yield {"µs": _microseconds(recorded(forward, device), len(layers))}


def _microseconds(forward: Run, layers: int) -> float:
    """Microseconds of one of the layers that a forward runs through."""
    return round(1e6 * seconds_of(forward) / layers, 1)


def _trees(prompts: IntArray, width: int, device: torch.device) -> tuple[Tensor, AttentionLayout]:
    """Slots and layout of requests whose prompts are cached and whose trees of `DEPTH` levels are scored."""
    nodes = width * DEPTH
    node = np.arange(nodes)
    path = np.stack([node % width + width * np.minimum(level, node // width) for level in range(DEPTH)], axis=1)
    starts = np.cumsum(prompts + nodes) - (prompts + nodes)
    keys = [np.arange(start, start + prompt + nodes) for start, prompt in zip(starts, prompts, strict=True)]
    slots = torch.from_numpy(np.concatenate([own[prompt:] for own, prompt in zip(keys, prompts, strict=True)])).to(device)
    visible = torch.from_numpy(np.repeat(prompts, nodes)).to(device)
    ancestors = torch.from_numpy(np.concatenate([path + prompt for prompt in prompts])).to(device)
    return slots, build_layout(keys, [nodes] * len(prompts), visible, ancestors)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
