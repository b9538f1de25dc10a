"""The recommender: a model, its prompt, a catalog and an engine that fit together, made from a model directory.

This is what a notebook, the offline command and the engine process use; they differ only in where requests come from. Invariant: nothing
that could make a request fail is left unchecked here, so a recommender that loads can serve every request within its limits.
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from drafting.array_types import FloatArray, IntArray
from drafting.beam.rule import MAX_BEAM_WIDTH, STRICT, NormaliseName, SearchRule
from drafting.catalog.catalog import Catalog
from drafting.device import is_async
from drafting.freed_memory import keep_freed_memory
from drafting.neighbours.candidates import Blending
from drafting.plans.costs import CostCurve
from drafting.plans.fixed_plan import FixedPlan, PlanError
from drafting.plans.planner import AUTO, Planner
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.user_state import UserState
from drafting.trie.item_trie import ItemTrie
from verification.batch import Answer, EngineTurns, Other, ScoresNotFinite, SharedEngine
from verification.engine.calibration import measure_costs, measure_target
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.checkpoint import HostError
from verification.hosts.exact import make_exact
from verification.hosts.graphs import GraphCounts, GraphedModel, graphed
from verification.hosts.loading import load_host
from verification.hosts.self_check import VerifyModel, verify_model
from verification.hosts.served_model import ServedModel
from verification.request import BeamRequest, item_indices
from verification.request_maker import RequestMaker
from verification.result import BeamResult, Precision
from verification.scored import Scored


class Recommender(RequestMaker):
    """Makes requests out of histories and searches them on one engine; `recommend` and `search` may be called from several threads."""

    def __init__(
        self,
        catalog: Catalog,
        prompts: PromptBuilder,
        engine: SpeculativeBeamEngine,
        model_name: str,
        served: ServedModel,
        name: str,
        precision: Precision,
        turns: EngineTurns | None = None,
    ) -> None:
        """As a `RequestMaker`, whose trie is the engine's.

        Args:
            precision: of the target.
            turns: of the recommender that this one is a successor of.
        """
        super().__init__(catalog, prompts, engine.trie, name, served)
        self._shared = SharedEngine(engine, turns or EngineTurns())
        self.engine = engine
        self.model_name = model_name
        self.precision = precision

    @classmethod
    def load(
        cls,
        target: Path,
        catalog: Catalog,
        *,
        base: Path | None = None,
        draft: Path | None = None,
        draft_base: Path | None = None,
        plan: str = "none",
        draft_items: int = 0,
        host: str = "transformers",
        dtype: str = "auto",
        threads: int | None = None,
        kv_memory_gib: float = 0.5,
        tensor_parallel: int = 1,
        quantization: str | None = None,
        graph_requests: int | None = None,
        name: str = "",
        verify: VerifyModel = "auto",
        exact: bool = False,
        normalise: NormaliseName = "auto",
        max_beam_width: int = MAX_BEAM_WIDTH,
    ) -> "Recommender":
        """Load a model directory for a catalog.

        Args:
            base, draft_base: base models of a target and a draft that are adapters; by default those that their configurations name.
            draft: directory of a small model over the same tokens, which proposes what the target verifies; it always runs on the
                transformers host, beside the target.
            plan: draft plan: "auto" (the planner, which takes a few seconds to measure this machine), "none", "trie", "beam:N",
                "beam:N+children" or others (see `FixedPlan`).
            draft_items: retrieved items of a request that "auto" may draft.
            host: "vllm" or "transformers".
            dtype: "auto", "float32", "bfloat16" or "float16".
            threads: CPU threads for the model; None leaves torch's choice.
            kv_memory_gib: memory for keys and values.
            tensor_parallel: number of devices that share the model (vLLM only).
            quantization: quantization of the target's weights while loading, "fp8" (vLLM on a GPU) or "int8" (vLLM on a CPU).
            graph_requests: record forwards of up to so many requests as CUDA graphs, which takes a while at start and needs a GPU.
            name: name of the catalog in requests; see `successor`.
            verify: compare the target with transformers' own attention (see `verify_model`): "auto", "always" or "never".
            exact: make lists independent of batch, cache and drafts in half precision, too (see `make_exact`; transformers host only).
            normalise: what scores are normalised over: the name of a `Normalisation`, or "auto", as the target says.
            max_beam_width: widest beam of a request, for which memory is set aside.

        Raises:
            HostError, CatalogError, PromptError, PlanError: the parts are unusable or do not fit together; the message is a sentence, and
                all that was loaded is closed again.
        """
        fixed_plan = FixedPlan.parse("none" if plan == AUTO else plan)
        fixed_plan.check(catalog.identifier_length)
        if fixed_plan.needs_draft and draft is None:
            raise PlanError(f"The plan {plan} needs a draft model: name its directory, or choose none or trie.")
        if graph_requests is not None and tensor_parallel != 1:
            raise HostError("CUDA graphs are recorded in one process: with tensor parallelism serve without.")
        if threads is not None:
            torch.set_num_threads(threads)
        served = ServedModel(target, draft, base, draft_base)
        fitted, over = served.fit(catalog), served.normalisation(normalise)
        served.warn(catalog)
        longest = served.loaded_for = fitted.longest
        with ExitStack() as loaded:
            model = load_host(
                host,
                target,
                base=served.files.given_base,
                dtype=dtype,
                kv_memory_gib=kv_memory_gib,
                longest=longest,
                tensor_parallel=tensor_parallel,
                quantization=quantization,
                exact=exact,
                check=lambda model: verify_model(model, target, longest, served.dtype(dtype), verify, served.files.given_base),
            )
            loaded.callback(model.close)
            if not is_async(model.device):
                # Only now, for loading frees more than any forward.
                keep_freed_memory()
            if exact:
                make_exact(model, longest)
            draft_model = None
            if served.draft_files is not None:
                draft_model = load_host("transformers", served.draft_files.directory, base=draft_base, dtype=dtype, slots=model.total_slots)
                loaded.callback(draft_model.close)
            if graph_requests is not None:
                model = graphed(model, graph_requests, longest)
                draft_model = None if draft_model is None else graphed(draft_model, graph_requests, longest)
            trie = ItemTrie.of(fitted.catalog.trie, fitted.token_ids, model.device)
            engine = SpeculativeBeamEngine(
                model,
                trie,
                draft_model,
                fixed_plan,
                fitted.prompts.shared_tokens,
                normalise=over,
                max_beam_width=max_beam_width,
                known_tokens=served.known_tokens,
            )
            if plan == AUTO:
                costs = measure_costs(engine, fitted.prompts.max_tokens)
                engine.use_plan(Planner(costs, trie.mean_fan_out, follows_clock=True, items=draft_items))
            loaded.pop_all()
        is_exact = exact or (served.dtype(dtype) == torch.float32 and quantization is None and not served.is_quantized)
        precision = Precision(str(served.dtype(dtype)).removeprefix("torch."), is_exact)
        return cls(fitted.catalog, fitted.prompts, engine, target.resolve().name, served, name, precision)

    def successor(self, catalog: Catalog, name: str) -> "Recommender":
        """A recommender for another catalog on the same models, beside this one; it may be made in another thread while this one works.

        Raises:
            SetupError: catalog and model do not belong together; the message is a sentence.
        """
        fitted = self._served.fit(catalog)
        trie = ItemTrie.of(fitted.catalog.trie, fitted.token_ids, self.engine.target.device)
        plan = self.engine.plan
        if isinstance(plan, Planner):
            plan = plan.successor(trie.mean_fan_out)
        elif isinstance(plan, FixedPlan):
            plan.check(trie.depth)
        engine = self.engine.successor(trie, plan)
        return Recommender(fitted.catalog, fitted.prompts, engine, self.model_name, self._served, name, self.precision, self._shared.turns)

    @cached_property
    def target_cost(self) -> CostCurve:
        """The cost of a forward of the target: as the planner measured it, otherwise measured on first use, on an idle engine."""
        plan = self.engine.plan
        return plan.costs.target if isinstance(plan, Planner) else measure_target(self.engine, self.prompts.max_tokens)

    def take_graph_counts(self) -> GraphCounts:
        """Forwards of target and draft that CUDA graphs replayed or did not fit, since this was last asked."""
        graphed_models = [model for model in (self.engine.target, self.engine.draft) if isinstance(model, GraphedModel)]
        counts = [model.take_counts() for model in graphed_models]
        return GraphCounts(sum(count.replayed for count in counts), sum(count.skipped for count in counts))

    def recommend(
        self,
        histories: Iterable[UserState | Sequence[int] | IntArray],
        k: int,
        beam_width: int | None = None,
        excluded_items: Iterable[Sequence[int] | IntArray] | None = None,
        rule: SearchRule = STRICT,
        think: int = 0,
        blend: Blending | None = None,
        beam_widths: Sequence[int] | None = None,
        diversity: Mapping[str, int] | None = None,
    ) -> Iterator[BeamResult]:
        """Search for many users or histories, as many at a time as make a full forward, and yield their lists in the order given.

        A caller that stops early, or an error in one of the histories, leaves nothing behind in the engine.

        Args:
            histories: of each list; see `request`, as for all that is not said here.
            k, beam_width, think, blend, beam_widths, diversity: of all lists.
            excluded_items: for each history, catalog indices of items that must not be returned; None excludes nothing.
            rule: of all lists. Where they are sampled, the seeds count up from its seed, so that no two histories share their noise.

        Raises:
            PromptError, ValueError: as `request`, or there are more or fewer exclusions than histories.
            ScoresNotFinite: what the model says after a history can't be ranked.
            RequestTooLarge: the memory for keys and values is too little for one of the lists.
            EngineSpoilt: a step was interrupted before, as by Ctrl-C; load the model again.
        """
        exclusions = iter(excluded_items) if excluded_items is not None else itertools.repeat(())
        batch = uuid.uuid4().hex
        requests = (
            self.request(
                f"{batch}/{number}",
                history,
                k,
                beam_width,
                excluded,
                rule.numbered(number),
                think=think,
                blend=blend,
                beam_widths=beam_widths,
                diversity=diversity,
            )
            for number, (history, excluded) in enumerate(zip(histories, exclusions, strict=excluded_items is not None))
        )
        for answer in self.search(requests):
            if isinstance(answer, ScoresNotFinite):
                raise answer
            yield answer

    def score(self, histories: Iterable[UserState | Sequence[int] | IntArray], items: Sequence[int] | IntArray) -> Iterator[FloatArray]:
        """The target's log-probabilities of items (catalog indices) after each of many histories, `[items]` float32 in the items' order.

        Raises:
            what `recommend` raises, or ValueError: there are no items.
        """
        scored, batch = Scored.of(self.engine.trie, item_indices(items, len(self.catalog), "The request names")), uuid.uuid4().hex
        for answer in self.search(self.score_request(f"{batch}/{number}", history, scored) for number, history in enumerate(histories)):
            if isinstance(answer, ScoresNotFinite):
                raise answer
            assert answer.scores is not None
            yield np.frombuffer(answer.scores, np.float32)

    def search(self, requests: Iterable[BeamRequest | Other]) -> Iterator[Answer | Other]:
        """The answers to requests of this recommender, in their order; see `SharedEngine.search_in_order`."""
        return self._shared.search_in_order(requests)

    def close(self) -> None:
        """Free the models."""
        self.engine.close()
