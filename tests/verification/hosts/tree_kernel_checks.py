"""The Triton kernel against the PyTorch version; run by `test_tree_kernel.py`, in Triton's interpreter where there is no GPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drafting.beam.model import AttentionLayout, build_layout, build_whole
from verification.hosts import tree_kernel
from verification.hosts.attention import tree_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The interpreter takes the bits of a bfloat16 for an integer.
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16
SLOTS = 2000
# In the interpreter, a stretch has a quarter of its columns, and so have prompts of some stretches.
SHARE = 1 if torch.cuda.is_available() else 4
# Of one stretch, and of three.
SHORT, LONG = 500 // SHARE, 1100 // SHARE
TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, HALF: {"atol": 2e-2, "rtol": 2e-2}}


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_kernel, "STRETCH_COLUMNS", tree_kernel.STRETCH_COLUMNS // SHARE)


def ragged(
    prompts: list[int], nodes: list[int], cached: list[int], seed: int, slot_count: int = SLOTS
) -> tuple[torch.Tensor, AttentionLayout]:
    """Slots and layout of requests with so many prompt tokens, nodes below random earlier ones, and prompt tokens computed before."""
    rng = np.random.default_rng(seed)
    free = rng.permutation(slot_count)
    keys, counts, visible, ancestors, slots, start = [], [], [], [], [], 0
    for prompt, added, known in zip(prompts, nodes, cached, strict=True):
        own, start = free[start : start + prompt + added], start + prompt + added
        paths = [[column] * 3 for column in range(prompt)]
        for column in range(prompt, prompt + added):
            parent = int(rng.integers(prompt - 1, column))
            inherited = [] if parent < prompt else list(dict.fromkeys(paths[parent]))[:2]
            paths.append((inherited + [column] * 3)[:3] if len(inherited) < 3 else inherited)
        keys.append(own.astype(np.int64))
        counts.append(prompt + added - known)
        visible += [min(column + 1, prompt) for column in range(known, prompt + added)]
        ancestors += paths[known:]
        slots += own[known:].tolist()
    layout = build_layout(keys, counts, torch.tensor(visible, device=DEVICE), torch.tensor(ancestors, device=DEVICE))
    return torch.tensor(slots, device=DEVICE), layout


@pytest.mark.parametrize(
    ("heads", "key_value_heads", "head_size", "value_size", "dtype", "capped", "viewed"),
    [
        (4, 4, 16, 16, torch.float32, False, False),
        (6, 2, 24, 40, torch.float32, True, False),
        (8, 1, 64, 64, torch.float32, False, True),
        (4, 2, 32, 24, HALF, True, True),
    ],
)
def test_ragged_requests_equal_the_pytorch_version(
    heads: int, key_value_heads: int, head_size: int, value_size: int, dtype: torch.dtype, capped: bool, viewed: bool
) -> None:
    slots, layout = ragged(prompts=[70, 3, 1], nodes=[9, 12, 0], cached=[60, 2, 0], seed=heads)
    if viewed:
        layout = with_a_window_and_biases(layout, heads)
    generator = torch.Generator().manual_seed(heads)
    query = torch.randn(len(slots), heads, head_size, generator=generator).to(DEVICE, dtype)
    sizes = (head_size, value_size)
    key, value = (torch.randn(len(slots), key_value_heads, size, generator=generator).to(DEVICE, dtype) for size in sizes)
    cache = torch.randn(SLOTS, key_value_heads, sum(sizes), generator=generator).to(DEVICE, dtype)
    softcap, sinks = 1.5 if capped else None, torch.randn(heads, generator=generator) + 2 if capped else None
    expected = tree_attention(query.cpu(), key.cpu(), value.cpu(), cache.cpu(), slots.cpu(), [on_cpu(layout)], 0.3, softcap, sinks)
    cache.index_copy_(0, slots, torch.cat([key, value], -1))
    attended = tree_kernel.attend(query, cache, layout, 0.3, softcap, None if sinks is None else sinks.to(DEVICE))
    assert attended.dtype == dtype
    torch.testing.assert_close(attended.cpu(), expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("prompt", [SHORT, LONG])
def test_a_prompt_that_all_tokens_see_equals_the_pytorch_version(prompt: int) -> None:
    """As a decoder's tokens see what an encoder has read."""
    generator = torch.Generator().manual_seed(0)
    query, cache = torch.randn(7, 4, 16, generator=generator).to(DEVICE), torch.randn(SLOTS, 4, 32, generator=generator).to(DEVICE)
    layout = build_whole(np.random.default_rng(0).permutation(SLOTS)[:prompt], 7, DEVICE)
    key, value = cache[layout.keys[0]].split(16, -1)
    expected = torch.einsum("qhc,chs->qhs", (torch.einsum("qhs,chs->qhc", query, key) * 0.3).softmax(-1), value)
    torch.testing.assert_close(tree_kernel.attend(query, cache, layout, 0.3), expected, **TOLERANCE[torch.float32])


def test_stretches_are_merged_and_the_company_changes_not_one_bit() -> None:
    alone_slots, alone = ragged(prompts=[LONG], nodes=[6], cached=[LONG - 2], seed=0)
    generator = torch.Generator().manual_seed(0)
    cache = torch.randn(SLOTS, 2, 32, generator=generator).to(DEVICE)
    query = torch.randn(11, 4, 16, generator=generator).to(DEVICE)
    assert alone.keys.shape[1] > 2 * tree_kernel.STRETCH_COLUMNS
    expected = tree_attention(
        query[:8].cpu(), *cache[alone_slots].cpu().chunk(2, -1), cache.cpu().clone(), alone_slots.cpu(), [on_cpu(alone)], 0.25
    )
    by_itself = tree_kernel.attend(query[:8], cache, alone, 0.25)
    torch.testing.assert_close(by_itself.cpu(), expected, atol=1e-5, rtol=1e-5)
    _, together = ragged(prompts=[LONG, 2], nodes=[6, 1], cached=[LONG - 2, 0], seed=0)
    assert (together.keys[0, : alone.keys.shape[1]] == alone.keys[0]).all()
    assert (tree_kernel.attend(query, cache, together, 0.25)[:8] == by_itself).all()


@pytest.mark.parametrize("sunk", [False, True])
def test_stretches_that_a_row_does_not_see_are_not_read_and_change_no_bit(sunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of one stretch is alone, then beside one of three; sums that nothing has written are NaN. The other's first row sees its
    second stretch alone.
    """
    slots, together = ragged(prompts=[SHORT, LONG], nodes=[2, 2], cached=[SHORT - 2, LONG - 2], seed=0)
    _, alone = ragged(prompts=[SHORT], nodes=[2], cached=[SHORT - 2], seed=0)
    together.mask[1, 0, 0, : tree_kernel.STRETCH_COLUMNS] = False
    generator = torch.Generator().manual_seed(0)
    cache = (3 * torch.randn(SLOTS, 2, 40, generator=generator)).to(DEVICE, HALF)
    query = torch.randn(len(slots), 4, 16, generator=generator).to(DEVICE, HALF)
    sinks = torch.randn(4, generator=generator).to(DEVICE) if sunk else None
    empty = torch.empty
    monkeypatch.setattr(tree_kernel.torch, "empty", lambda shape, **others: empty(shape, **others).fill_(torch.nan))
    by_itself = tree_kernel.attend(query[:4], cache, alone, 0.5, None, sinks)
    attended = tree_kernel.attend(query, cache, together, 0.5, None, sinks)
    assert (attended[:4] == by_itself).all()
    own = cache[slots].cpu()
    key, value = own[..., :16], own[..., 16:]
    sinks = None if sinks is None else sinks.cpu()
    expected = tree_attention(query.cpu(), key, value, cache.cpu().clone(), slots.cpu(), [on_cpu(together)], 0.5, None, sinks)
    torch.testing.assert_close(attended.cpu(), expected, **TOLERANCE[HALF])


@pytest.mark.parametrize(("prompt", "sunk"), [(SHORT, False), (LONG, True)])
def test_what_is_no_number_stays_none(prompt: int, sunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row and of all that see a key; sums that nothing has written are 7."""
    slots, layout = ragged(prompts=[prompt], nodes=[2], cached=[prompt - 2], seed=0)
    generator = torch.Generator().manual_seed(0)
    cache = torch.randn(SLOTS, 2, 40, generator=generator).to(DEVICE)
    query = torch.randn(len(slots), 4, 16, generator=generator).to(DEVICE)
    sinks = torch.randn(4, generator=generator).to(DEVICE) if sunk else None
    empty = torch.empty
    monkeypatch.setattr(tree_kernel.torch, "empty", lambda shape, **others: empty(shape, **others).fill_(7.0))
    query[1, 2] = torch.nan
    attended = tree_kernel.attend(query, cache, layout, 0.5, None, sinks)
    assert attended.isnan().all(2).nonzero().tolist() == [[1, 2]]
    cache[layout.keys[0, 0], 0, 3] = torch.nan
    # Two heads share the key, which all see.
    assert tree_kernel.attend(query, cache, layout, 0.5, None, sinks)[:, :2].isnan().all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="reads and writes a file")
def test_sums_of_long_prompts_lie_beyond_32_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of some ten prompts of 5,000 tokens do; here they lie so far apart in a file that is never written to a disk in full."""
    slots, layout = ragged(prompts=[LONG], nodes=[2], cached=[LONG], seed=1)
    generator = torch.Generator().manual_seed(1)
    cache, query = torch.randn(SLOTS, 1, 32, generator=generator).half(), torch.randn(len(slots), 2, 16, generator=generator).half()
    expected = tree_kernel.attend(query, cache, layout, 0.25)
    apart, empty = 2**30, torch.empty
    far = torch.from_numpy(np.memmap(tmp_path / "sums", np.float32, "w+", shape=2 * apart + 2**10))

    def spread(shape: tuple[int, ...], **others: Any) -> torch.Tensor:
        made = empty(shape, **others)
        return far.as_strided(shape, (apart, *made.stride()[1:])) if len(shape) == 4 else made

    monkeypatch.setattr(tree_kernel.torch, "empty", spread)
    assert (tree_kernel.attend(query, cache, layout, 0.25) == expected).all()


def with_a_window_and_biases(layout: AttentionLayout, heads: int) -> AttentionLayout:
    columns = torch.arange(layout.keys.shape[1], device=DEVICE)
    # Every row keeps the last of its columns, that of its own token.
    last = (columns * layout.mask).amax(-1, keepdim=True)
    # Those of a token: padding repeats it.
    biases = torch.randn(len(layout.indices), heads, len(columns), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    # A view, as those by depth are.
    return replace(layout, mask=layout.mask & (last - columns < 5), biases=biases[layout.queries].transpose(1, 2))


def on_cpu(layout: AttentionLayout) -> AttentionLayout:
    return layout.to(torch.device("cpu"))
