"""Keys and values that are written and read in place are those of `tree_attention`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drafting.beam.model import AttentionLayout, build_layout
from verification.hosts.attention import tree_attention
from verification.hosts.encoder_decoder_columns import Columns

LAYERS, HEADS, SIZE = 2, 3, 4
FIRST, COLUMNS = 5, 7


def one_request(queries: int, keys: np.ndarray) -> AttentionLayout:
    """The last `queries` columns attend to the first one and to themselves, with biases."""
    own = torch.arange(len(keys) - queries, len(keys))[:, None]
    layout = build_layout([keys], [queries], torch.ones(queries, dtype=torch.int64), own)
    return replace(layout, biases=torch.randn(1, HEADS, queries, len(keys), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("new", [[10, 11], [11, 10], [6, 11], [7, 8]], ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["side by side", "apart"])
def test_one_request_in_place_equals_tree_attention(new: list[int], apart: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    keys = np.arange(FIRST, FIRST + COLUMNS)
    layout = one_request(len(new), np.roll(keys, 1) if apart else keys)
    assert (layout.first is None) == apart
    caches = torch.randn(LAYERS, 20, HEADS, 2, SIZE, generator=generator)
    expected, slots = caches.clone(), torch.tensor(new)
    columns = Columns(caches, slots, [[layout]] * LAYERS, is_exact=False)
    for layer in range(LAYERS):
        query, key, value = torch.randn(3, len(new), HEADS, SIZE, generator=generator)
        attended = tree_attention(query, key, value, expected[layer].flatten(2), slots, [layout], 1.0)
        columns.write(layer, torch.stack([key, value], 1)[None])
        torch.testing.assert_close(columns.attend(layer, query[None]), attended.flatten(1))
        assert torch.equal(caches[layer], expected[layer])
