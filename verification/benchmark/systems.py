"""The systems that are compared: our engine, and what users have without it.

Invariant: each system gets the same prompt on the same checkpoint and reports only the time of its own search; loading, warm-up and the
translation of its answer stay outside.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from drafting.catalog import Catalog
from drafting.plan import FixedPlan
from drafting.prompt import PromptBuilder, PromptTemplate
from verification.benchmark.closed_loop import Answer, closed_loop
from verification.hosts.checkpoint import load_tokenizer

IntArray = npt.NDArray[np.int64]
Identifiers = list[tuple[int, ...]]


AUTO = "auto"
PLAIN = "none"


@dataclass(frozen=True)
class SystemSpec:
    """What is to be measured; plain enough to be sent to the process that measures it.

    Attributes:
        name: `atspeed/vllm`, `atspeed/transformers`, `vllm` or `transformers`.
        draft: the draft model, for our engine.
        plans: what our engine will be asked to draft by.
    """

    name: str
    target: Path
    catalog: Path
    threads: int
    draft: Path | None = None
    plans: tuple[str, ...] = (PLAIN,)


@dataclass(frozen=True)
class Question:
    """What a system is asked in one turn.

    Attributes:
        histories: catalog indices, oldest first.
        plan: what to draft; systems that know no drafts are only asked for none.
        concurrency: how many of the histories are asked at once; a finished one is replaced by the next.
        cached: whether each user was asked before with all but the last item, so that only that one is new.
    """

    histories: Sequence[list[int]]
    k: int
    plan: str = PLAIN
    concurrency: int = 1
    cached: bool = False


@dataclass(frozen=True)
class Outcome:
    """One search.

    Attributes:
        seconds: wall-clock time from the question to the list.
        identifiers: the k identifiers found as token ids, best first.
        target_forwards: forwards of the target that the search took part in.
        tokens: tokens in all of these forwards, or its share of them where searches ran together; 0 where the system does not tell.
    """

    seconds: float
    identifiers: Identifiers
    target_forwards: int
    tokens: float = 0


class System(Protocol):
    """Something that finds the k best identifiers after a history."""

    def search(self, question: Question) -> list[Outcome]:
        """One outcome per history, in order."""
        ...


class EngineSystem:
    """This project's engine: target and draft are loaded once, and every plan runs on them."""

    def __init__(self, spec: SystemSpec, catalog: Catalog) -> None:
        from verification.recommender import Recommender

        self._recommender = Recommender.load(
            spec.target,
            catalog,
            draft=spec.draft,
            plan=AUTO if AUTO in spec.plans else PLAIN,
            host=spec.name.rpartition("/")[2],
            threads=spec.threads,
            kv_memory_gib=0.5,
        )
        # A planner measures the models when it is made and learns while it is used: there is one for the whole run.
        made = self._recommender.engine.plan
        self._plans = {made.name: made}
        self._identifiers = catalog.token_ids(load_tokenizer(spec.target).get_vocab())

    def search(self, question: Question) -> list[Outcome]:
        engine = self._recommender.engine
        if question.plan not in self._plans:
            self._plans[question.plan] = FixedPlan.parse(question.plan)
        engine.use_plan(self._plans[question.plan])
        if question.cached:
            self._ask_before(question)
        # Where several run together, some more keep the last ones company, so that all are timed under the same load.
        company = itertools.cycle(question.histories) if question.concurrency > 1 else ()
        requests = (
            self._recommender.request(str(number), history, question.k, cache_key=str(number) if question.cached else None)
            for number, history in enumerate(itertools.chain(question.histories, company))
        )
        answers = closed_loop(engine, requests, len(question.histories), question.concurrency)
        engine.forget_histories()
        return [self._outcome(answer) for answer in answers]

    def _ask_before(self, question: Question) -> None:
        """Leaves the prompt of each history without its last item behind."""
        requests = (
            self._recommender.request(str(number), history[:-1] or history, question.k, cache_key=str(number))
            for number, history in enumerate(question.histories)
        )
        closed_loop(self._recommender.engine, requests, len(question.histories), question.concurrency)

    def _outcome(self, answer: Answer) -> Outcome:
        first = {item.rank: item.item for item in reversed(answer.result.items)}
        identifiers = [tuple(self._identifiers[first[rank]].tolist()) for rank in sorted(first)]
        return Outcome(answer.seconds, identifiers, answer.result.usage.target_forwards, answer.tokens)


class PrefixTable:
    """Valid next tokens of every prefix in a dictionary: the trie that users of `prefix_allowed_tokens_fn` write."""

    def __init__(self, identifiers: IntArray) -> None:
        follows: dict[tuple[int, ...], set[int]] = {}
        for row in map(tuple, identifiers.tolist()):
            for depth, token in enumerate(row):
                follows.setdefault(row[:depth], set()).add(token)
        self.next = {prefix: sorted(tokens) for prefix, tokens in follows.items()}

    def after(self, prompt_length: int) -> Callable[[int, torch.Tensor], list[int]]:
        """The function that `generate` asks for the allowed tokens."""
        return lambda _, tokens: self.next[tuple(tokens[prompt_length:].tolist())]


class GenerateSystem:
    """transformers' `generate` with beams constrained by a prefix function."""

    def __init__(self, spec: SystemSpec, catalog: Catalog) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(spec.threads)
        tokenizer = load_tokenizer(spec.target)
        identifiers = catalog.token_ids(tokenizer.get_vocab())
        self._prompts = PromptBuilder(PromptTemplate.load(spec.target), tokenizer, identifiers)
        self._table = PrefixTable(identifiers)
        self._depth = catalog.identifier_length
        self._model: Any = AutoModelForCausalLM.from_pretrained(spec.target).eval()

    def search(self, question: Question) -> list[Outcome]:
        return [self._search(history, question.k) for history in question.histories]

    def _search(self, history: list[int], k: int) -> Outcome:
        started = time.perf_counter()
        prompt = self._prompts.build(history)
        sequences, _ = generate_beams(self._model, prompt[None], self._table, k, self._depth)
        return Outcome(time.perf_counter() - started, [tuple(row) for row in sequences.tolist()], self._depth)


@torch.inference_mode()
def generate_beams(model: Any, prompts: IntArray, table: PrefixTable, k: int, depth: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Constrained beam search by transformers.

    Args:
        prompts: `[prompts, tokens]`.

    Returns:
        identifiers `[prompts * k, depth]`, best first, and the sums of their log-probabilities `[prompts * k]`; None for k = 1, where
        transformers searches greedily and reports no score.
    """
    tokens = torch.from_numpy(prompts).to(model.device)
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        num_beams=k,
        num_return_sequences=k,
        max_new_tokens=depth,
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=table.after(tokens.shape[1]),
        return_dict_in_generate=True,
        output_scores=True,
    )
    return output.sequences[:, tokens.shape[1] :], output.sequences_scores if k > 1 else None


def make_system(spec: SystemSpec) -> System:
    """Loads what `spec` names.

    Raises:
        SetupError: models, catalog and plans do not fit together; the message is a sentence.
    """
    catalog = Catalog.load(spec.catalog)
    if spec.name == "vllm":
        from verification.hosts.vllm_beam_search import VllmBeamSearch

        return VllmBeamSearch(spec.target, catalog, spec.threads)
    return GenerateSystem(spec, catalog) if spec.name == "transformers" else EngineSystem(spec, catalog)
