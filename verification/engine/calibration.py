"""Calibration: what forwards cost here, measured by running the engine itself.

Invariant: the figures are those of whole engine steps, so they hold what a user waits for: preparing a forward, the model, reading its
results. Plans take turns, because some costs are differences between them, and a machine that has become slower in between would be in
these. A calibrated engine holds nothing of the requests that measured it.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np

from drafting.device import is_async
from drafting.errors import SetupError
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import StepReport

logger = logging.getLogger(__name__)

PROMPT_LENGTHS = (8, 64, 192)
# While the longest forward takes less than so many times as long as the shortest, longer ones are tried, each of twice as many tokens: what
# tokens cost where forwards are flat at first shows beyond the bend only.
LONG_ENOUGH = 3.0
MOST_TOKENS = 4096
BEAM_WIDTHS = (1, 20)
DRAFT_WIDTHS = (10, 60)
# Requests that are measured in one step, to see what drafting for each further one takes.
TOGETHER = 8
REPEATS = 4
# A large model on a slow machine must not keep its users waiting for a figure that two runs give as well as ten. For each plan.
BUDGET_SECONDS = 2.0


def measure_costs(engine: SpeculativeBeamEngine, longest_prompt: int) -> ForwardCosts:
    """Time forwards of target and draft through an idle engine; takes a few seconds at most.

    Args:
        longest_prompt: the most tokens that a prompt of this model may have.

    Raises:
        SetupError: the engine has too few slots for the shortest prompt.
    """
    with _own_plans(engine):
        searches = _searches(longest_prompt)
        # All children of a wide beam make forwards far longer than those that the curve goes through.
        together = [_request(number, min(PROMPT_LENGTHS[0], longest_prompt), BEAM_WIDTHS[0]) for number in range(TOGETHER)]
        plans = {"none": searches, "trie": [*_searches(longest_prompt, BEAM_WIDTHS[:1]), together]}
        if engine.has_draft:
            plans |= {f"beam:{width}": searches for width in DRAFT_WIDTHS}
        reports = _run(engine, plans)
        plain, trie = reports.pop("none"), reports.pop("trie")
        target = _fit_target(engine, longest_prompt, plain)
        children, level = _fit_levels(trie, plain, target, is_async(engine.target.device))
        # A draft that fails while it is measured is dropped by the engine, and has no cost to know.
        draft = _fit_draft([report for drafted in reports.values() for report in drafted]) if engine.has_draft else None
    logger.info(
        "A forward of the target takes %s%s.", target, f", one of the draft {draft}" if draft else "; nothing is drafted by a model"
    )
    return ForwardCosts(target, draft, children, level, further_children=_fit_further(trie, children))


def measure_target(engine: SpeculativeBeamEngine, longest_prompt: int) -> CostCurve:
    """Time forwards of the target alone; see `measure_costs`."""
    with _own_plans(engine):
        return _fit_target(engine, longest_prompt, _run(engine, {"none": _searches(longest_prompt)})["none"])


@contextmanager
def _own_plans(engine: SpeculativeBeamEngine) -> Iterator[None]:
    plan = engine.plan
    try:
        yield
    finally:
        # Not `use_plan`: a plan whose draft has just failed stays, and does without as it does while serving.
        engine.plan = plan


def _searches(longest_prompt: int, widths: Sequence[int] = BEAM_WIDTHS) -> list[list[BeamRequest]]:
    return [[_request(0, min(length, longest_prompt), width)] for length in PROMPT_LENGTHS for width in widths]


def _request(number: int, prompt: int, width: int) -> BeamRequest:
    # The values of the tokens do not affect the cost of a forward.
    return BeamRequest(f"calibration-{number}", np.zeros(prompt, np.int64), 1, width)


def _run(engine: SpeculativeBeamEngine, plans: Mapping[str, Sequence[Sequence[BeamRequest]]]) -> dict[str, list[StepReport]]:
    """The steps of each plan's batches, of which as many requests run at once as the engine has room for; all plans in turn, and again."""
    started = time.perf_counter()
    reports: dict[str, list[StepReport]] = {name: [] for name in plans}
    for repeat in range(REPEATS + 1):
        for name, batches in plans.items():
            plan = FixedPlan.parse(name)
            if plan.needs_draft and not engine.has_draft:
                continue
            engine.use_plan(plan)
            steps = [report for batch in batches for report in _steps(engine, batch)]
            # The first run pays for what later ones find ready.
            reports[name] += steps if repeat else []
        if repeat and time.perf_counter() - started > BUDGET_SECONDS * len(plans):
            break
    return reports


def _steps(engine: SpeculativeBeamEngine, batch: Sequence[BeamRequest]) -> Iterator[StepReport]:
    for request in batch:
        if engine.has_room(request):
            engine.add(request)
    while engine.running:
        yield engine.step()


def _fit_target(engine: SpeculativeBeamEngine, longest_prompt: int, reports: Sequence[StepReport]) -> CostCurve:
    if not (measured := _medians(reports)):
        raise SetupError(
            f"The memory for keys and values holds only {engine.total_slots} tokens, too few to measure a forward: raise --kv-memory-gib."
        )
    tokens = 2 * max(PROMPT_LENGTHS)
    while max(measured.values()) < LONG_ENOUGH * min(measured.values()) and tokens <= MOST_TOKENS:
        # Where no prompt may be as long, several make one forward of that many tokens.
        count = -(-tokens // longest_prompt)
        measured |= _medians(_run(engine, {"none": [[_request(number, tokens // count, 1) for number in range(count)]]})["none"])
        tokens *= 2
    return CostCurve.fit(list(measured), list(measured.values()))


def _fit_levels(trie: Sequence[StepReport], plain: Sequence[StepReport], target: CostCurve, waits: bool) -> tuple[float, float]:
    """Seconds to draft children and to verify the level that they make acceptable; at most those of a forward.

    A level is what a step takes beside its forward and beyond a step that verifies one level less. Where reading `waits` for the device,
    the forward ends in the read, so it is what a step takes beyond its forward: a forward's noise grows with its length, so the shorter
    half of the steps shows it.
    """
    accepted = [report for report in trie if report.accepted == 1]
    if not accepted:
        return 0.0, 0.0
    children = median(report.draft_seconds for report in accepted)
    if waits:
        shorter = sorted(accepted, key=lambda report: report.tokens)[: -(-len(accepted) // 2)]
        level = median(report.seconds - report.draft_seconds - target.seconds(report.tokens) for report in shorter)
    else:
        level = _beside_forward(accepted) - _beside_forward(plain)
    return min(max(children, 0.0), target.fixed), min(max(level, 0.0), target.fixed)


def _fit_further(trie: Sequence[StepReport], children: float) -> float:
    """Seconds that each further request adds to drafting children; no more than the first takes."""
    more = [(report.draft_seconds - children) / (report.accepted - 1) for report in trie if report.accepted > 1]
    return min(max(median(more), 0.0), children) if more else 0.0


def _beside_forward(reports: Sequence[StepReport]) -> float:
    return median(report.seconds - report.draft_seconds - report.target_seconds for report in reports)


def _fit_draft(reports: Sequence[StepReport]) -> CostCurve | None:
    """Per forward: a step may run several of different sizes, of which only the sums are known. None where too little is drafted to tell:
    identifiers of one token leave nothing to draft."""
    drafted = [report for report in reports if report.draft_forwards]
    measured = _by_size(
        [(round(report.draft_tokens / report.draft_forwards), report.draft_seconds / report.draft_forwards) for report in drafted]
    )
    return CostCurve.fit(list(measured), list(measured.values())) if len(measured) > 1 else None


def _medians(reports: Sequence[StepReport]) -> dict[int, float]:
    """Seconds of the target's forwards by their tokens."""
    return _by_size([(report.tokens, report.seconds - report.draft_seconds) for report in reports])


def _by_size(measured: list[tuple[int, float]]) -> dict[int, float]:
    """The median of each size."""
    return {size: median(seconds for tokens, seconds in measured if tokens == size) for size in sorted({tokens for tokens, _ in measured})}
