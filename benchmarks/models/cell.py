"""One cell: the lists that a host makes of a checkpoint, those of transformers' own constrained `generate`, and whether they are equal.

Invariant: each history is searched together with others and the longest one also alone, plain and drafted, at every K. The reference is
asked for each history by itself, through transformers' own attention. A list is identifiers with their cumulative log-probabilities, best
first.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import logging as transformers_logging

from benchmarks.models.checkpoint import KS, PLANS, question
from drafting.plans.fixed_plan import FixedPlan
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.recommender import Recommender
from verification.result import BeamResult

Pairs = list[tuple[tuple[int, ...], float]]
# Lists by "plan k history"; those of the reference by "k history".
Lists = dict[str, Pairs]
Histories = Sequence[Sequence[int]]
TOLERANCE = 1e-4


class CellError(Exception):
    """A list is missing; the message is a sentence."""


def host_lists(folder: Path, host: str, histories: Histories) -> Lists:
    """The lists that a host makes, as a server with `--engine` would; those of a history alone have the plan's name with "alone".

    Args:
        histories: catalog indices of `question`.

    Raises:
        SetupError: the model is refused.
        CellError: a request failed.
    """
    transformers_logging.disable_progress_bar()
    catalog, _ = question()
    recommender = Recommender.load(folder, catalog, host=host, dtype="float32", threads=1, kv_memory_gib=0.1)
    identifiers = recommender.catalog.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    last, lists = len(histories) - 1, {}
    for plan in PLANS:
        recommender.engine.use_plan(FixedPlan.parse(plan))
        together = [recommender.request(f"{plan} {k} {i}", history, k, k) for i, history in enumerate(histories) for k in KS]
        alone = recommender.request(f"{plan}-alone {KS[0]} {last}", histories[last], KS[0], KS[0])
        for batch in (together, [alone]):
            for result in recommender.search(batch):
                if not isinstance(result, BeamResult):
                    raise CellError(f"A request failed: {result}")
                lists[result.request_id] = [(tuple(identifiers[item.item].tolist()), item.score) for item in result.items]
    recommender.close()
    return lists


def reference_lists(folder: Path, histories: Histories) -> Lists:
    """The lists of transformers' `generate` under the catalog's constraint; what transformers raises is passed on."""
    transformers_logging.disable_progress_bar()
    catalog, _ = question()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    table, model, lists = PrefixTable(identifiers), _reference(folder), {}
    for index, history in enumerate(histories):
        prompt = np.concatenate([[tokenizer.bos_token_id], *identifiers[list(history)]])
        for k in KS:
            sequences, scores = generate_beams(model, prompt[None], table, k, catalog.identifier_length)
            lists[f"{k} {index}"] = list(zip(map(tuple, sequences.tolist()), scores.tolist(), strict=True))
    return lists


def _reference(folder: Path) -> PreTrainedModel:
    try:
        # Written out, transformers adds Falcon's biases by position twice.
        attention = "sdpa" if AutoConfig.from_pretrained(folder).model_type == "falcon" else "eager"
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    except ValueError:
        # Some families have no choice of attention.
        model = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()


def differences(lists: Lists, reference: Lists) -> Iterator[tuple[str, float]]:
    """Requests whose lists differ from the reference's, with the largest difference of scores at one rank."""
    for name, found in lists.items():
        _, k, history = name.split()
        expected = reference[f"{k} {history}"]
        worst = largest_difference(found, expected)
        if len(found) != len(expected) or worst > TOLERANCE or not _same_order(found, expected):
            yield name, worst


def largest_difference(found: Pairs, expected: Pairs) -> float:
    """The largest difference between two scores of the same rank."""
    return max((abs(ours[1] - theirs[1]) for ours, theirs in zip(found, expected, strict=False)), default=0.0)


def _same_order(found: Pairs, expected: Pairs) -> bool:
    """The same identifiers, of which only those with the same score, to the tolerance, may change places."""
    scores = dict(expected)
    return len(dict(found)) == len(found) and all(
        identifier in scores and abs(scores[identifier] - expected[rank][1]) <= TOLERANCE for rank, (identifier, _) in enumerate(found)
    )


def as_lists(decoded: Any) -> Lists:
    """Lists that came from a child or from JSON."""
    return {name: [(tuple(identifier), score) for identifier, score in pairs] for name, pairs in decoded.items()}
