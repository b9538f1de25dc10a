"""Tree attention in Triton, which `verification.hosts.attention` uses on a GPU.

A program computes one key/value head of one request, a block of rows (query tokens times the query heads of the key/value head) and a
stretch of columns. It reads each key and value once for all its rows: a prompt is read once per request, not once per beam. Keys are read
from their slots without a copy, and blocks that are masked for all rows are skipped. A second kernel merges the stretches.

Invariant: stretches begin at fixed columns, and their results are merged by log-sum-exp in their order; one that a row does not see adds
exactly nothing. The order in which the terms of a row are summed therefore depends on the row alone, not on the other requests of the
batch or on the device (batch invariance).
"""

from subprocess import SubprocessError
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from drafting.beam.model import AttentionLayout
from drafting.errors import first_line
from verification.hosts.checkpoint import HostError

# What a program holds at a time, by the bytes of a number and the most numbers of a head: rows, columns, and the warps that share them. As
# much as registers hold on GPUs of the last three generations; only float32 with heads of 256 spills a little.
BLOCKS = {
    2: {64: (64, 64, 4), 128: (64, 64, 8), 256: (64, 32, 8), 512: (32, 32, 8)},
    4: {64: (16, 16, 4), 512: (16, 16, 8)},
}
# Short enough for one request of a large model to occupy a data-centre GPU, long enough for partial sums to cost little.
STRETCH_COLUMNS = 512
MERGED_ROWS = 16
# Smallest operand of tensor cores.
SMALLEST_HEAD = 16
# What Triton says where it finds none, in an error that has no class of its own.
NO_COMPILER = "find C compiler"


# Integers that differ between batches: for those that are 1, for multiples of 16 and for all others, Triton would compile kernels of their
# own, each within the first request that needs it. Other strides are the same for all batches, or multiples of 16.
@triton.jit(do_not_specialize=["query_count", "column_count", "norm_stretch_stride"])  # type: ignore[untyped-decorator]
def _attend_stretch(  # type: ignore[no-untyped-def]
    query,
    cache,
    keys,
    mask,
    biases,
    queries,
    sums,
    norms,
    scale,
    query_count,
    column_count,
    query_token_stride,
    query_head_stride,
    slot_stride,
    sum_stretch_stride,
    norm_stretch_stride,
    KEY_VALUE_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BIASED: tl.constexpr,
) -> None:
    """Attend to one stretch of columns for one block of rows; store normalised sums of values and the logarithms of the divisors."""
    request = tl.program_id(1) // KEY_VALUE_HEADS
    head = tl.program_id(1) % KEY_VALUE_HEADS
    stretch = tl.program_id(2)

    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    query_index = row // GROUP
    query_head = head * GROUP + row % GROUP
    is_row = query_index < query_count
    token = tl.load(queries + request * query_count + query_index, mask=is_row, other=0)
    size = tl.arange(0, HEAD_BLOCK)
    is_size = size < HEAD_SIZE
    value_size = tl.arange(0, VALUE_BLOCK)
    is_value_size = value_size < VALUE_SIZE
    asked = tl.load(
        query + (token * query_token_stride + query_head * query_head_stride)[:, None] + size[None, :],
        mask=is_row[:, None] & is_size[None, :],
        other=0.0,
    )

    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    for first in range(stretch * STRETCH, tl.minimum((stretch + 1) * STRETCH, column_count), COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        is_column = column < column_count
        seen = tl.load(
            mask + (request * query_count + query_index).to(tl.int64)[:, None] * column_count + column[None, :],
            mask=is_row[:, None] & is_column[None, :],
            other=0,
        )
        if tl.max(tl.max(seen.to(tl.int32), 1), 0) > 0:
            slot = tl.load(keys + request * column_count + column, mask=is_column, other=0)
            address = cache + (slot * slot_stride + head * (HEAD_SIZE + VALUE_SIZE))[:, None]
            key = tl.load(address + size[None, :], mask=is_column[:, None] & is_size[None, :], other=0.0)
            value = tl.load(address + HEAD_SIZE + value_size[None, :], mask=is_column[:, None] & is_value_size[None, :], other=0.0)
            scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
            if SOFTCAP > 0:
                # The hyperbolic tangent: Triton has none for every device.
                scores = SOFTCAP * (2 * tl.sigmoid(2 * scores / SOFTCAP) - 1)
            if BIASED:
                bias_row = (request * KEY_VALUE_HEADS * GROUP + query_head) * query_count + query_index
                scores += tl.load(
                    biases + bias_row.to(tl.int64)[:, None] * column_count + column[None, :],
                    mask=is_row[:, None] & is_column[None, :],
                    other=0.0,
                )
            scores = tl.where(seen > 0, scores, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            # For a row without unmasked columns so far, -inf minus -inf would be NaN.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            weights = tl.exp(scores - base[:, None])
            kept = tl.exp(highest - base)
            total = total * kept + tl.sum(weights, 1)
            summed = summed * kept[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
            highest = higher

    # What is no number stays none, as it does in PyTorch.
    divisor = tl.where(total == 0, 1.0, total)
    # Of a stretch that a row does not see, nothing but the norm is read.
    is_stored = is_row & (tl.where(stretch == 0, 1.0, total) != 0)
    # Sums of long prompts are more than 32 bits can number.
    sums += stretch.to(tl.int64) * sum_stretch_stride
    tl.store(
        sums + ((token * KEY_VALUE_HEADS * GROUP + query_head) * VALUE_SIZE)[:, None] + value_size[None, :],
        summed / divisor[:, None],
        mask=is_stored[:, None] & is_value_size[None, :],
    )
    tl.store(
        norms + stretch * norm_stretch_stride + token * KEY_VALUE_HEADS * GROUP + query_head,
        tl.where(total == 0, float("-inf"), highest + tl.log(divisor)),
        mask=is_row,
    )


@triton.jit(do_not_specialize=["stretches", "row_count"])  # type: ignore[untyped-decorator]
def _merge_stretches(  # type: ignore[no-untyped-def]
    sums,
    norms,
    stretches,
    row_count,
    sum_stretch_stride,
    VALUE_SIZE: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Merge the stretches of some rows into the first; rows are tokens times heads."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    size = tl.arange(0, VALUE_BLOCK)
    is_row = row < row_count
    is_size = (size < VALUE_SIZE)[None, :]
    first_sum, first_norm = sums + (row * VALUE_SIZE)[:, None] + size[None, :], norms + row
    sum_of_stretch, norm_of_stretch = first_sum, first_norm
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    for _ in range(stretches):
        norm = tl.load(norm_of_stretch, mask=is_row, other=float("-inf"))
        is_seen = norm != float("-inf")
        normalised = tl.load(sum_of_stretch, mask=is_seen[:, None] & is_size, other=0.0)
        higher = tl.maximum(highest, norm)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        kept, added = tl.exp(highest - base), tl.exp(norm - base)
        # Left to the compiler, whether a product and a sum are rounded once or twice may depend on the batch's shape.
        total = tl.fma(total, kept, added)
        summed = tl.fma(summed, tl.broadcast_to(kept[:, None], summed.shape), normalised * added[:, None])
        highest = higher
        sum_of_stretch += sum_stretch_stride
        norm_of_stretch += row_count
    divisor = tl.where(total == 0, 1.0, total)
    tl.store(first_sum, tl.div_rn(summed, tl.broadcast_to(divisor[:, None], summed.shape)), mask=is_row[:, None] & is_size)
    tl.store(first_norm, tl.where(total == 0, float("-inf"), highest + tl.log(divisor)), mask=is_row)


def attend(
    query: Tensor, cache: Tensor, layout: AttentionLayout, scale: float, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """Attend to keys and values in the cache.

    Args:
        query: `[tokens, heads, head size]`, the last dimension contiguous.
        cache: `[slots, key/value heads, head size + value size]`, contiguous.
        layout: the columns that each query may attend to.
        scale, softcap, sinks: as in `verification.hosts.attention.tree_attention`.

    Returns:
        `[tokens, heads, value size]` of the query's dtype; sums are float32.

    Raises:
        HostError: Triton can't make the kernel on this machine, which it does at the first call.
    """
    try:
        return _attend(query, cache, layout, scale, softcap, sinks)
    except (TritonError, SubprocessError, RuntimeError) as error:
        # Triton's own, those of the compilers that it runs, and one of many that are the device's.
        if isinstance(error, RuntimeError) and NO_COMPILER not in str(error):
            raise
        raise HostError(
            f"Triton can't make the kernel of tree attention here ({type(error).__name__}: {first_line(error)}): it needs a C compiler and "
            "Python's header files; where the GPU has too little room for the kernel, another --dtype may fit."
        ) from error


def _attend(query: Tensor, cache: Tensor, layout: AttentionLayout, scale: float, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """As `attend`, with errors as they are raised."""
    tokens, heads, head_size = query.shape
    value_size = cache.shape[2] - head_size
    requests, columns = layout.keys.shape
    query_count = layout.queries.shape[1]
    group = heads // cache.shape[1]
    stretches = triton.cdiv(columns, STRETCH_COLUMNS)
    # Biases by depth come as a view with the heads first, and the mask of a prompt that all see as one byte.
    biases = None if layout.biases is None else layout.biases.contiguous()
    mask = layout.mask.contiguous().view(torch.uint8)
    sums = torch.empty((stretches, tokens, heads, value_size), dtype=torch.float32, device=query.device)
    norms = torch.empty((stretches, tokens, heads), dtype=torch.float32, device=query.device)
    constants = kernel_constants(query.dtype, heads, cache.shape[1], head_size, value_size, softcap, biases is not None)
    grid = (triton.cdiv(query_count * group, constants["ROWS"]), requests * cache.shape[1], stretches)
    _attend_stretch[grid](
        query,
        cache,
        layout.keys,
        mask,
        biases,
        layout.queries,
        sums,
        norms,
        scale,
        query_count,
        columns,
        query.stride(0),
        query.stride(1),
        cache.stride(0),
        sums.stride(0),
        norms.stride(0),
        **constants,
    )
    if stretches > 1:
        rows = tokens * heads
        sizes = {"VALUE_SIZE": value_size, "VALUE_BLOCK": constants["VALUE_BLOCK"], "ROWS": MERGED_ROWS}
        _merge_stretches[(triton.cdiv(rows, MERGED_ROWS),)](sums, norms, stretches, rows, sums.stride(0), **sizes)
    attended = sums[0]
    if sinks is not None:
        # A sink adds to the divisor alone, which is the exponential of the norm.
        attended = attended * (norms[0] - sinks.float()).sigmoid()[..., None]
    return attended.to(query.dtype)


def kernel_constants(
    dtype: torch.dtype,
    heads: int,
    key_value_heads: int,
    head_size: int,
    value_size: int,
    softcap: float | None = None,
    biased: bool = False,
) -> dict[str, Any]:
    """The compile-time constants of the kernel: the shape of the heads, the limit of scores (0 for none), biases, block sizes and warps."""
    blocks = [max(SMALLEST_HEAD, triton.next_power_of_2(size)) for size in (head_size, value_size)]
    sizes = BLOCKS[dtype.itemsize]
    # Biases are as many numbers more.
    held = max(blocks) * (2 if biased else 1)
    rows, columns, warps = sizes[min((most for most in sizes if most >= held), default=max(sizes))]
    return {
        "KEY_VALUE_HEADS": key_value_heads,
        "GROUP": heads // key_value_heads,
        "HEAD_SIZE": head_size,
        "VALUE_SIZE": value_size,
        "HEAD_BLOCK": blocks[0],
        "VALUE_BLOCK": blocks[1],
        "ROWS": rows,
        "COLUMNS": columns,
        "STRETCH": STRETCH_COLUMNS,
        "SOFTCAP": softcap or 0.0,
        "BIASED": biased,
        "num_warps": warps,
    }
