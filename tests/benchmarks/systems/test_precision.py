"""Ties in low precision are told from differences, by hand-made lists and on a small model in bfloat16."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from benchmarks.systems.precision import compare_precision, count, margin_of
from drafting.beam.rule import STRICT
from tests.models import random_catalog, save_random_model
from tests.speculation import noisy_copy
from verification.recommender import Recommender
from verification.result import BeamResult, RankedItem, Usage

USAGE = Usage(prompt_tokens=1, cached_tokens=0, target_forwards=1, accepted_depths=(), drafted_nodes=0, draft_forwards=0, plan="")


def listed(*scored: tuple[int, float]) -> BeamResult:
    return BeamResult("", tuple(RankedItem(item, score, rank) for rank, (item, score) in enumerate(scored, start=1)), USAGE, STRICT)


PLAIN = listed((1, -1.0), (2, -1.01), (3, -3.0))
BEAM = listed((1, -0.5), (2, -0.6), (3, -2.0), (9, -2.02))


def test_what_has_changed_places_is_as_far_apart_as_its_scores():
    assert margin_of(PLAIN, PLAIN, [BEAM]) == 0
    assert margin_of(PLAIN, listed((2, -1.0), (1, -1.01), (3, -3.0)), [BEAM]) == pytest.approx(0.01)
    assert margin_of(PLAIN, listed((3, -1.0), (1, -1.0), (2, -1.01)), [BEAM]) == pytest.approx(2.0)


def test_what_is_missing_is_as_far_from_the_bar_as_its_closest_prefix_was():
    without_last = listed((1, -1.0), (2, -1.01), (4, -3.01))
    assert margin_of(PLAIN, without_last, [BEAM, PLAIN]) == pytest.approx(0.0)
    assert margin_of(PLAIN, without_last, [BEAM]) == pytest.approx(0.02)
    # Whoever comes in shifts all below: that is no change of their order.
    assert margin_of(PLAIN, listed((4, -0.9), (1, -1.0), (2, -1.01)), [BEAM]) == pytest.approx(0.02)
    assert margin_of(PLAIN, listed((2, -1.01), (3, -3.0), (4, -3.01)), [BEAM]) == pytest.approx(1.52)


def test_a_difference_is_a_tie_up_to_twice_the_noise():
    noisy = listed((2, -1.02), (1, -1.005), (3, -3.0))
    found = count([PLAIN, PLAIN, PLAIN], [PLAIN, noisy, noisy], [0.0, 0.02, 0.03])
    assert (found.equal, found.ties, found.different, found.margin) == (1, 1, 1, 0.02)
    assert found.noise[-1] == pytest.approx(0.01)
    assert "1 of 3 lists equal, 1 differ in ties, 1 differ" in str(found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_changes_nothing_but_ties(dtype: str, tmp_path: Path):
    catalog = random_catalog(items=300, depth=4)
    target = save_random_model(tmp_path / "target", catalog, hidden=32, layers=1)
    recommender = Recommender.load(
        target, catalog, draft=noisy_copy(target, tmp_path / "draft", 0.15), plan="beam:20", dtype=dtype, kv_memory_gib=0.02
    )
    identifiers = recommender.catalog.token_ids(AutoTokenizer.from_pretrained(target).get_vocab())
    rng = np.random.default_rng(0)
    histories = [rng.integers(300, size=int(length)).tolist() for length in rng.integers(1, 8, size=40)]
    found = compare_precision(recommender, identifiers, histories, 10, "beam:20")
    recommender.close()
    assert found.different == 0
    assert found.equal + found.ties == 40
    if dtype == "float32":
        assert found.noise[-1] < 1e-5
    else:
        # Whether noise turns into a tie is a matter of the processor's kernels; the lists above are told apart on any.
        assert found.noise[-1] > 1e-5
