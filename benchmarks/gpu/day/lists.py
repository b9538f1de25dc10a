"""Parts that make lists with random models of a small shape: are they the same however they are computed, and what does `generate` take?"""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.gpu.day.results import Figures, Measured
from benchmarks.gpu.day.scale import Scale
from benchmarks.systems.comparison import TIE, compare
from benchmarks.systems.shapes import Shape, make_identifiers, make_model
from drafting.array_types import IntArray
from drafting.errors import SetupError
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_trie import ItemTrie
from verification.engine.engine import SpeculativeBeamEngine
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.hosts.exact import make_exact
from verification.hosts.transformers import ATTENTION, TransformersHost
from verification.request import BeamRequest
from verification.result import BeamResult

# Precision, and whether as with `--exact`.
SETTINGS = {"float32": ("float32", False), "bfloat16": ("bfloat16", False), "bfloat16, exact": ("bfloat16", True)}
# Plan, and requests at once.
WAYS = {"in company": ("none", 8), "all children": ("trie", 8), "the draft's beam": ("beam:40", 8), "both": ("beam:40+children", 1)}
GENERATED = 30
PROMPT, SLOTS = 80, 16384
# Random weights so much larger make scores as far apart as training does.
SPREAD, NOISE = 3.0, 0.15


@dataclass(frozen=True)
class _Pair:
    """A random target, a draft that is the target with noise on its weights, and the identifiers that both recommend."""

    target: PreTrainedModel
    draft: PreTrainedModel
    identifiers: IntArray
    trie: ItemTrie

    def prompts(self, count: int, tokens: int) -> list[IntArray]:
        """Identifiers of random items, cut to length."""
        rng = np.random.default_rng(0)
        items = rng.integers(len(self.identifiers), size=(count, -(-tokens // self.trie.depth)))
        return [self.identifiers[row].reshape(-1)[:tokens] for row in items]


def compare_lists(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """Lists of each precision computed in company and with drafts against those computed alone, and float32's against `generate`'s."""
    for name, (dtype, exact) in SETTINGS.items():
        if name in done:
            continue
        pair = _make_pair(scale.exact, dtype, scale.device)
        hosts = [TransformersHost.from_model(model, SLOTS) for model in (pair.target, pair.draft)]
        if exact:
            make_exact(hosts[0], PROMPT + pair.trie.depth)
        engine = SpeculativeBeamEngine(hosts[0], pair.trie, hosts[1])
        prompts = pair.prompts(scale.lists, PROMPT)
        alone = _search(engine, prompts, scale.k, "none", 1)
        rows = [_row(name, way, alone, _search(engine, prompts, scale.k, *WAYS[way])) for way in WAYS]
        if dtype == "float32":
            rows.append(_against_generate(name, scale, pair, prompts[:GENERATED], alone))
        yield Measured(name, rows)


def time_generate(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """transformers' own constrained beam search of the paper's target, one request at a time; ours are in the table of that shape."""
    shape = scale.paper.shape
    cases = [case for case in scale.paper.cases if str(case) not in done]
    if not cases:
        return
    identifiers = _token_ids(shape)
    longest = max(case.prompt for case in cases) + identifiers.shape[1]
    model = make_model(shape.target, shape.target.words + shape.catalog.codes, longest, scale.device).eval()
    table = PrefixTable(identifiers)
    for case in cases:
        prompt, seconds = identifiers.reshape(-1)[None, : case.prompt], []
        for _ in range(1 + scale.repeats):
            started = time.perf_counter()
            generate_beams(model, prompt, table, case.k, identifiers.shape[1])[0].cpu()
            seconds.append(time.perf_counter() - started)
        row: Figures = {"shape": scale.paper.name, "prompt": case.prompt, "k": case.k, "generate, p50 ms": 1e3 * median(seconds[1:])}
        yield Measured(str(case), [row])


def _make_pair(shape: Shape, dtype: str, device: torch.device) -> _Pair:
    identifiers, vocabulary = _token_ids(shape), shape.target.words + shape.catalog.codes
    target, draft = (
        make_model(shape.target, vocabulary, PROMPT + identifiers.shape[1], device, attn_implementation=ATTENTION).float() for _ in range(2)
    )
    noise = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for ours, drafts in zip(target.parameters(), draft.parameters(), strict=True):
            if ours.ndim > 1:
                ours.mul_(SPREAD)
            drafts.copy_(ours + NOISE * ours.std() * torch.randn(ours.shape, generator=noise, device=device))
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    return _Pair(target.to(precision), draft.to(precision), identifiers, ItemTrie.build(identifiers, device))


def _token_ids(shape: Shape) -> IntArray:
    """The identifiers of a shape's catalog as token ids of its models."""
    codes: IntArray = make_identifiers(shape.catalog) + np.cumsum([shape.target.words, *shape.catalog.codes_per_level[:-1]])
    return codes


def _search(engine: SpeculativeBeamEngine, prompts: Sequence[IntArray], k: int, plan: str, at_once: int) -> list[BeamResult]:
    """The lists of all prompts, so many of them running at once.

    Raises:
        SetupError: the draft has failed, without which the engine goes on, or the target's logits are not finite.
    """
    engine.use_plan(FixedPlan.parse(plan))
    waiting = deque(BeamRequest(str(number), prompt, k, k) for number, prompt in enumerate(prompts))
    found: dict[str, BeamResult] = {}
    while waiting or engine.running:
        while waiting and engine.running < at_once:
            engine.add(waiting.popleft())
        report = engine.step()
        if report.draft_failed or report.failed:
            failed = "the draft" if report.draft_failed else "a search"
            raise SetupError(f"Lists with the plan {plan} can't be compared: {failed} has failed.")
        found |= {result.request_id: result for result in report.finished}
    return [found[str(number)] for number in range(len(prompts))]


def _row(name: str, way: str, alone: Sequence[BeamResult], found: Sequence[BeamResult]) -> Figures:
    counts = compare(alone, found)
    others = sum({item.item for item in one.items} != {item.item for item in other.items} for one, other in zip(alone, found, strict=True))
    return {
        "precision": name,
        "way": way,
        "lists": len(alone),
        "equal": counts.equal,
        f"ties (closer than {TIE:g})": counts.ties,
        "differ": counts.different,
        "hold other items": others,
        "target forwards": round(counts.target_forwards, 2),
    }


def _against_generate(name: str, scale: Scale, pair: _Pair, prompts: Sequence[IntArray], alone: Sequence[BeamResult]) -> Figures:
    shape = scale.exact
    peer = make_model(shape.target, shape.target.words + shape.catalog.codes, PROMPT + pair.trie.depth, scale.device).eval()
    peer.load_state_dict(pair.target.state_dict())
    table = PrefixTable(pair.identifiers)
    equal = ties = others = 0
    for prompt, ours in zip(prompts, alone[: len(prompts)], strict=True):
        sequences, scores = generate_beams(peer, prompt[None], table, scale.k, pair.trie.depth)
        theirs = sequences.tolist()
        own = [pair.identifiers[item.item].tolist() for item in ours.items]
        apart = float((scores.cpu() - torch.tensor([item.score for item in ours.items])).abs().max()) if len(own) == len(theirs) else np.inf
        equal += own == theirs
        # Scores at the same rank that are this close mean that only neighbours have changed places.
        ties += own != theirs and apart < TIE
        others += sorted(own) != sorted(theirs)
    return {
        "precision": name,
        "way": "transformers' generate",
        "lists": len(prompts),
        "equal": equal,
        f"ties (closer than {TIE:g})": ties,
        "differ": len(prompts) - equal - ties,
        "hold other items": others,
        "target forwards": float(pair.trie.depth),
    }
