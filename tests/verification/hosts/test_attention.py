"""Tree attention against one softmax per token, written out."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from drafting.beam.model import MANY_NODES, WIDE_TREE, AttentionLayout, TreeBatch, build_layout, build_layouts
from drafting.beam.tree import TokenTree
from verification.hosts.attention import Alibi, LayerLayouts, Reach, View, tree_attention

HEAD_SIZE, SLOTS, DEPTH = 8, 64, 3


def reference(query, keys, values, seen: list[list[int]], scale: float) -> torch.Tensor:
    """`seen[t]` are the slots that token t attends to."""
    groups = query.shape[1] // keys.shape[1]
    rows = []
    for token, slots in enumerate(seen):
        k, v = keys[slots].repeat_interleave(groups, 1), values[slots].repeat_interleave(groups, 1)
        weights = (torch.einsum("hd,shd->hs", query[token], k) * scale).softmax(-1)
        rows.append(torch.einsum("hs,shd->hd", weights, v))
    return torch.stack(rows)


@pytest.mark.parametrize(("heads", "key_value_heads"), [(4, 4), (4, 2), (3, 1)])
def test_prompt_and_ancestors_in_one_ragged_batch(heads: int, key_value_heads: int) -> None:
    """Request A computes a prompt of three tokens; request B, with a cached prompt of two, scores two nodes and a child of the second."""
    generator = torch.Generator().manual_seed(heads)
    cache = torch.randn(SLOTS, key_value_heads, 2 * HEAD_SIZE, generator=generator)
    a, b = np.array([9, 4, 30]), np.array([7, 8, 50, 51, 60])
    tree = TokenTree(SLOTS, DEPTH, torch.device("cpu"))
    tree.add_prompt(torch.from_numpy(a), torch.arange(3))
    tree.add_prompt(torch.from_numpy(b[:2]), torch.arange(2))
    level = {"slots": [50, 51], "parents": [8, 8], "tokens": [0, 0], "depths": [1, 1], "indices": [2, 3]}
    child = {"slots": [60], "parents": [51], "tokens": [0], "depths": [2], "indices": [4]}
    for nodes in (level, child):
        tree.add_nodes(**{name: torch.tensor(values) for name, values in nodes.items()})

    slots = torch.tensor([9, 4, 30, 50, 51, 60])
    layout = build_layout([a, b], [3, 3], visible=torch.tensor([1, 2, 3, 2, 2, 2]), ancestors=tree.ancestors[slots])
    seen = [[9], [9, 4], [9, 4, 30], [7, 8, 50], [7, 8, 51], [7, 8, 51, 60]]

    query, key, value = (torch.randn(6, h, HEAD_SIZE, generator=generator) for h in (heads, key_value_heads, key_value_heads))
    attended = tree_attention(query, key, value, cache, slots, [layout], scale=0.3)
    torch.testing.assert_close(cache[slots], torch.cat([key, value], -1))
    torch.testing.assert_close(attended, reference(query, *cache.chunk(2, -1), seen, 0.3))


@pytest.mark.parametrize(("slots", "is_range"), [([4, 5, 6], True), ([4, 6, 5], False), ([7], True)])
def test_keys_and_values_are_written_to_their_slots_alone(slots: list[int], is_range: bool) -> None:
    tokens = len(slots)
    layout = build_layout([np.array(slots)], [tokens], torch.arange(1, tokens + 1), torch.arange(tokens)[:, None])
    rows = torch.tensor(slots)
    batch = TreeBatch(rows, torch.arange(tokens), rows, None, (layout,))
    assert isinstance(batch.written, slice) == is_range
    cache, expected = torch.zeros(2, SLOTS, 2, 2 * HEAD_SIZE).unbind(0)
    query, key, value = (torch.randn(tokens, 3, 2, HEAD_SIZE, generator=torch.Generator().manual_seed(1))[:, part] for part in range(3))
    tree_attention(query, key, value, cache, batch.written, [layout], 0.3)
    expected[rows] = torch.cat([key, value], -1)
    assert torch.equal(cache, expected)


def test_padding_does_not_change_a_request() -> None:
    """Unequal numbers of queries and columns: each row equals the row of the request alone."""
    generator = torch.Generator().manual_seed(0)
    cache = torch.randn(SLOTS, 2, 2 * HEAD_SIZE, generator=generator)
    short, long = np.arange(2), np.arange(10, 17)
    query, key, value = (torch.randn(9, 2, HEAD_SIZE, generator=generator) for _ in range(3))

    def attend(requests: list[np.ndarray], tokens: slice) -> torch.Tensor:
        slots = torch.from_numpy(np.concatenate(requests))
        columns = torch.cat([torch.arange(len(request)) for request in requests])
        layout = build_layout(requests, [len(request) for request in requests], columns + 1, columns[:, None])
        return tree_attention(query[tokens], key[tokens], value[tokens], cache.clone(), slots, [layout], 0.5)

    together = attend([short, long], slice(0, 9))
    torch.testing.assert_close(together[:2], attend([short], slice(0, 2)))
    torch.testing.assert_close(together[2:], attend([long], slice(2, 9)))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
def test_slots_that_follow_each_other_are_read_in_place_and_as_others_are(precision: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    side_by_side, scattered = np.arange(7, 16), np.array([7, 3, 30, 31, 32, 12, 1, 0, 39])
    query, key, value = (torch.randn(9, 2, HEAD_SIZE, generator=generator) for _ in range(3))
    columns = torch.arange(9)
    attended = []
    for slots in (side_by_side, scattered):
        layout = build_layout([slots], [9], columns + 1, columns[:, None])
        assert layout.first == (7 if slots is side_by_side else None)
        cache = torch.zeros(40, 2, 2 * HEAD_SIZE)
        attended.append(tree_attention(query.to(precision), key, value, cache, torch.from_numpy(slots), [layout], 0.5))
    assert torch.equal(*attended)


def test_prompts_and_beams_are_laid_out_apart_and_attend_as_if_together() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 200, 1, 40, 150]
    requests = [np.arange(length) + 300 * number for number, length in enumerate(lengths)]
    slots = torch.from_numpy(np.concatenate(requests))
    columns = torch.cat([torch.arange(length) for length in lengths])
    query, key, value = (torch.randn(len(slots), 2, HEAD_SIZE, generator=generator) for _ in range(3))
    cache = torch.zeros(1500, 2, 2 * HEAD_SIZE)
    apart = build_layouts(requests, lengths, columns + 1, columns[:, None], lengths, lengths)
    assert [layout.queries.shape for layout in apart] == [(2, 3), (1, 40), (2, 200)]
    assert torch.cat([layout.tokens for layout in apart]).sort().values.tolist() == list(range(len(slots)))
    together = build_layout(requests, lengths, columns + 1, columns[:, None])
    attended, expected = (tree_attention(query, key, value, cache, slots, layouts, 0.5) for layouts in (apart, [together]))
    torch.testing.assert_close(attended, expected)


def test_layout_checks_its_mask() -> None:
    with pytest.raises(ValueError, match="mask must have shape"):
        AttentionLayout(torch.zeros(1, 2), torch.zeros(2), torch.zeros(1, 3), torch.zeros(1, 1, 2, 4), torch.zeros(2))


def test_a_wide_tree_is_attended_to_in_two_parts_and_as_in_one_row() -> None:
    """A request that computes its prompt with two levels below it, beside one that computes the lower of two levels, and a narrow one."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    prompts, levels = [5, 3, 4], [(WIDE_TREE // 2, WIDE_TREE), (WIDE_TREE, MANY_NODES), (2, 3)]
    keys, counts, visible, ancestors = [], [], [], []
    free = rng.permutation(2000)
    for number, (prompt, (upper, lower)) in enumerate(zip(prompts, levels, strict=True)):
        length = prompt + upper + lower
        own, free = free[:length], free[length:]
        above = np.arange(length)
        above[prompt + upper :] = prompt + rng.integers(upper, size=lower)
        new = lower if number == 1 else length
        keys.append(own)
        counts.append(new)
        visible.append(np.minimum(np.arange(1, length + 1), prompt)[-new:])
        ancestors.append(np.stack([above, np.arange(length)], 1)[-new:])
    starts = np.cumsum([0, *counts])
    rows = torch.from_numpy(np.concatenate(visible)), torch.from_numpy(np.concatenate(ancestors))
    read = [5, 0, 4]
    layouts = build_layouts(keys, counts, *rows, prompts, read)
    assert [layout.further is not None for layout in layouts] == [True, True, False]
    assert torch.cat([layout.tokens for layout in layouts]).sort().values.tolist() == list(range(len(rows[0])))

    slots = torch.from_numpy(np.concatenate([own[-new:] for own, new in zip(keys, counts, strict=True)]))
    cache = torch.randn(2000, 2, 2 * HEAD_SIZE, generator=generator)
    query = torch.randn(len(slots), 4, HEAD_SIZE, generator=generator)
    attended = tree_attention(query, None, None, cache, slots, layouts, 0.3)
    for number, (own, count, start) in enumerate(zip(keys, counts, starts, strict=False)):
        part = slice(start, start + count)
        alone = build_layout([own], [count], rows[0][part], rows[1][part])
        torch.testing.assert_close(attended[part], tree_attention(query[part], None, None, cache, slots[part], [alone], 0.3))
        single = build_layouts([own], [count], rows[0][part], rows[1][part], prompts[number : number + 1], read[number : number + 1])
        torch.testing.assert_close(attended[part], tree_attention(query[part], None, None, cache, slots[part], single, 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "features", [(), ("caps",), ("sinks",), ("windows",), ("biases",), ("caps", "sinks", "windows", "biases")], ids=str
)
def test_two_parts_know_all_that_layers_ask_for(features: tuple[str, ...], dtype: torch.dtype) -> None:
    """The same numbers as one row of all columns, for two heads of queries to one of keys."""
    generator, prompt = torch.Generator().manual_seed(0), 6
    length = prompt + 2 * WIDE_TREE
    slots = torch.randperm(500, generator=generator)[:length]
    above = torch.arange(length)
    above[-WIDE_TREE:] -= WIDE_TREE
    ancestors, visible = torch.stack([above, torch.arange(length)], 1)[-WIDE_TREE:], torch.full((WIDE_TREE,), prompt)
    cache = torch.randn(500, 2, 2 * HEAD_SIZE, generator=generator).to(torch.promote_types(dtype, torch.float32))
    query = torch.randn(WIDE_TREE, 4, HEAD_SIZE, generator=generator)
    # So narrow a window shows nothing of the prompt to the second level.
    view = View(Reach(2) if "windows" in features else None, Alibi((0.5, 0.25, 0.1, 0.3)) if "biases" in features else None)
    positions = torch.cat([torch.arange(prompt), torch.full((WIDE_TREE,), prompt), torch.full((WIDE_TREE,), prompt + 1)])
    seen = LayerLayouts([view], 500, query.device)
    written = build_layout([slots.numpy()], [length], torch.arange(1, length + 1), torch.arange(length)[:, None])
    seen.of(TreeBatch(slots, positions, slots, None, (written,)))

    def attend(layouts: Sequence[AttentionLayout], dtype: torch.dtype) -> torch.Tensor:
        new = slots[-WIDE_TREE:]
        (ours,) = seen.of(TreeBatch(new, positions[-WIDE_TREE:], new, None, tuple(layouts)))
        cap, sinks = 2.0 if "caps" in features else None, torch.linspace(-1, 1, 4, dtype=dtype) if "sinks" in features else None
        return tree_attention(query.to(dtype), None, None, cache.to(dtype), new, ours, 0.3, cap, sinks)

    split = build_layouts([slots.numpy()], [WIDE_TREE], visible, ancestors, [prompt], [0])
    assert split[0].further is not None
    expected = attend([build_layout([slots.numpy()], [WIDE_TREE], visible, ancestors)], torch.float64)
    torch.testing.assert_close(attend(split, dtype), expected.to(dtype), atol=0.03 if dtype == torch.bfloat16 else 1e-5, rtol=0)
