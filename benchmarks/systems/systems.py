"""The systems that are compared: our engine, and what users have without it.

Invariant: each system gets the same prompt on the same checkpoint and reports only the time of its own search; loading, warm-up and the
translation of its answer stay outside.
"""

import itertools
import time
from typing import Any

import torch

from benchmarks.systems.closed_loop import Answer, closed_loop
from benchmarks.systems.prompt_builder import prompt_builder
from benchmarks.systems.question import AUTO, PLAIN, Outcome, Question, System, SystemSpec
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.model_files import ModelFiles
from drafting.plans.fixed_plan import FixedPlan
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.hosts.adapter import load_reference
from verification.hosts.checkpoint import load_config, load_tokenizer


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
        # Where several run together, some more fill the batch of the last ones, so that all are timed under the same load.
        fillers = itertools.cycle(question.histories) if question.concurrency > 1 else ()
        requests = (
            self._recommender.request(str(number), history, question.k, question.k, cache_key=str(number) if question.cached else None)
            for number, history in enumerate(itertools.chain(question.histories, fillers))
        )
        answers = closed_loop(engine, requests, len(question.histories), question.concurrency)
        engine.forget_histories()
        return [self._outcome(answer) for answer in answers]

    def _ask_before(self, question: Question) -> None:
        """Leave the prompt of each history without its last item behind."""
        requests = (
            self._recommender.request(str(number), history[:-1] or history, question.k, question.k, cache_key=str(number))
            for number, history in enumerate(question.histories)
        )
        closed_loop(self._recommender.engine, requests, len(question.histories), question.concurrency)

    def _outcome(self, answer: Answer) -> Outcome:
        identifiers = [tuple(self._identifiers[item.item].tolist()) for item in answer.result.firsts]
        return Outcome(answer.seconds, identifiers, answer.result.usage.target_forwards, answer.tokens)


class GenerateSystem:
    """transformers' `generate` with beams constrained by a prefix function."""

    def __init__(self, spec: SystemSpec, catalog: Catalog) -> None:
        torch.set_num_threads(spec.threads)
        self._prompts = prompt_builder(spec.target, catalog)
        self._table = PrefixTable(catalog.token_ids(load_tokenizer(spec.target).get_vocab()))
        self._depth = catalog.identifier_length
        files = ModelFiles.find(spec.target)
        self._renormalise = files.renormalises
        self._model: Any = load_reference(files, load_config(spec.target).dtype)

    def search(self, question: Question) -> list[Outcome]:
        return [self._search(history, question.k) for history in question.histories]

    def _search(self, history: list[int], k: int) -> Outcome:
        started = time.perf_counter()
        prompt = self._prompts.build(history)
        sequences, _ = generate_beams(self._model, prompt[None], self._table, k, self._depth, self._renormalise)
        return Outcome(time.perf_counter() - started, [tuple(row) for row in sequences.tolist()], self._depth)


def make_system(spec: SystemSpec) -> System:
    """Load what `spec` names.

    Raises:
        SetupError: models, catalog and plans do not fit together; the message is a sentence.
    """
    catalog = load_catalog(spec.catalog)
    if spec.name == "vllm":
        from benchmarks.systems.vllm_beam_search import VllmBeamSearch

        return VllmBeamSearch(spec.target, catalog, spec.threads)
    return GenerateSystem(spec, catalog) if spec.name == "transformers" else EngineSystem(spec, catalog)
