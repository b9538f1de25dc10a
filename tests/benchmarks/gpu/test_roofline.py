"""Times on paper: what is counted, by hand for one small forward, and a line for every forward of a list."""

import pytest

from benchmarks.gpu.roofline import Case, Forward, Work, attention, linear, rows
from benchmarks.systems.shapes import ModelShape

SHAPE = ModelShape(hidden=64, layers=2, heads=4, key_value_heads=2, intermediate=128, words=100, dtype="bfloat16")


def test_attention_moves_keys_masks_and_partial_sums() -> None:
    work, least = attention(SHAPE, 3, Forward("nodes", tokens=10, known=590, outputs=10))
    keys, asked = 2 * 3 * 600 * 2 * 16 * 2, 2 * 30 * 4 * 16 * 2
    # Two stretches, and their merged sums.
    masks, sums = 30 * 600 * 2, 2 * (2 + 1) * 30 * 4 * 16 * 4
    assert (work.moved, least) == (2 * (keys + asked + masks + sums), 2 * (keys + asked))
    assert work.computed == 2 * 4 * 30 * 600 * 4 * 16


def test_prompt_tokens_write_sums_of_no_later_stretch() -> None:
    work, _ = attention(SHAPE, 2, Forward("prompt", tokens=600, known=0, outputs=1))
    keys, asked, masks = 2 * 2 * 600 * 2 * 16 * 2, 2 * 1200 * 4 * 16 * 2, 1200 * 600 * 2
    sums = 2 * 2 * (512 + 2 * 88 + 600) * 4 * 16 * 4
    assert work.moved == 2 * (keys + asked + masks + sums)
    work, _ = attention(SHAPE, 2, Forward("prompt", tokens=512, known=0, outputs=1))
    assert work.moved == 2 * (2 * 2 * 512 * 2 * 16 * 2 + 2 * 1024 * 4 * 16 * 2 + 1024 * 512 * 2 + 2 * 1024 * 4 * 16 * 4)


def test_weights_are_read_once_and_the_head_gives_what_is_asked_for() -> None:
    layer = 64 * 16 * (2 * 4 + 2 * 2) + 3 * 64 * 128
    work = linear(SHAPE, 2, Forward("prompt", tokens=50, known=0, outputs=1), codes=28)
    assert work.moved == 2 * (2 * layer + 128 * 64) + 2 * 128 * 2
    assert work.computed == 2 * (2 * layer * 100 + 128 * 64 * 2)


def test_the_slower_of_memory_and_arithmetic_decides() -> None:
    assert Work(moved=2.68e12, computed=1).milliseconds == pytest.approx(1000)
    assert Work(moved=1, computed=593.4e12).milliseconds == pytest.approx(1000)


def test_a_list_takes_what_its_forwards_take() -> None:
    lines = rows([Case("a list", "tiny", 2, 100, (5, 7))])
    assert [line[2:4] for line in lines] == [("prompt", 200), ("nodes 1", 10), ("nodes 2", 14), ("**the lists**", "")]
    assert [forward.known for forward in Case("a list", "tiny", 2, 100, (5, 7)).forwards] == [0, 100, 105]
