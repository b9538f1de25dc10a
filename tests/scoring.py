"""Scores by an oracle: transformers' own forward of the whole text, prompt and identifier, for each candidate by itself."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from drafting.trie.item_trie import ItemTrie
from tests.lists import assert_same_list
from tests.speculation import ITEMS, Speculation
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.scored import Scored


@torch.inference_mode()
def forward_scores(model: PreTrainedModel, prompt: np.ndarray, identifiers: np.ndarray) -> np.ndarray:
    """`[candidates]`, the log-probability of each identifier, `[candidates, depth]`, after a prompt."""
    tokens = torch.from_numpy(np.hstack([np.tile(prompt, (len(identifiers), 1)), identifiers]))
    log_probs = model(tokens).logits[:, len(prompt) - 1 : -1].log_softmax(-1)
    return log_probs.gather(2, tokens[:, len(prompt) :, None]).sum((1, 2)).numpy()


def scores_of(result: BeamResult) -> np.ndarray:
    assert result.scores is not None
    assert not result.items
    return np.frombuffer(result.scores, np.float32)


def score_requests(models: Speculation, trie: ItemTrie, count: int, rng: np.random.Generator) -> tuple[list[BeamRequest], list[np.ndarray]]:
    """Requests for scores of one item, of many, of all of them, and of some more than once; and the items."""
    requests, asked = [], []
    for number, plain in enumerate(models.requests(count, rng)):
        items = rng.choice(ITEMS, size=int(rng.choice([1, 5, 60])), replace=True) if number % 4 else rng.permutation(ITEMS)
        requests.append(BeamRequest(f"scores {number}", plain.prompt, 1, 1, scored=Scored.of(trie, items)))
        asked.append(items)
    return requests, asked


def check_scores_beside_lists(models: Speculation, depth: int, plain: dict[str, BeamResult], lists: Sequence[BeamRequest]) -> None:
    """Scores of any number of candidates a step equal the oracle's, and the lists beside them are those that they are alone."""
    rng, trie, engine = np.random.default_rng(depth), models.tries[depth], models.engine(depth)
    model = AutoModelForCausalLM.from_pretrained(models.folder).eval()
    requests, asked = score_requests(models, trie, 8, rng)
    keyed = [replace(request, cache_key=f"user {number % 3}") for number, request in enumerate(requests)]
    waiting = [request for pair in zip(keyed, lists, strict=False) for request in pair]
    results: dict[str, BeamResult] = {}
    while waiting or engine.running:
        for _ in range(min(int(rng.integers(0, 4)), len(waiting))):
            engine.add(waiting.pop())
        report = engine.step(rng.choice([None, 1, 7, 40]))
        results.update((result.request_id, result) for result in report.finished)
    assert engine.used_slots == 0
    for request, items in zip(keyed, asked, strict=True):
        expected = forward_scores(model, request.prompt, models.identifiers[items][:, :depth])
        np.testing.assert_allclose(scores_of(results[request.request_id]), expected, atol=1e-4, rtol=0)
        assert results[request.request_id].usage.candidates == len(items)
    for request in lists[: len(keyed)]:
        assert_same_list(results[request.request_id], plain[request.request_id])
