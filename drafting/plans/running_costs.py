"""Running costs: costs that follow the steps of an engine, so that a machine that has become faster or slower is noticed.

Invariant: each second of a step is counted once, where it arises. What steps with accepted levels take beyond others of their size belongs
to these levels, what learning from a draft's proposals takes to the draft's forward, what drafting children takes to the children, and what
looking at last lists takes to the searches that do. If these were counted in the target's forwards, drafting would seem to save what it
costs.

What seemed too expensive is not done, and therefore not timed. Where that is long ago, trials count it as cheap, so that every cost is
measured again.
"""

from dataclasses import dataclass, replace

import numpy as np

from drafting.plans.costs import SHORTEST, CostCurve, ForwardCosts

# Sizes, on top of what is free, at which a first measurement counts as one forward each: half with a further level, half without.
PRIOR_TOKENS = (1, 16, 64, 256)
PRIOR_WEIGHT = 0.5
# After about 200 forwards, one weighs a third of a new one.
FADING = 0.995
# What takes longer than so many times the mean of steps, when some were seen, was interrupted.
OUTLIER = 4.0
FEWEST_STEPS = 8
# This share of the steps that verify several levels is timed; and so it is of the others, after so many of them in a row. After so many
# steps of both kinds the costs are looked at anew.
TIMED_SHARE = 0.25
ALL_TIMED = 8
LOOK_AT_TIMES_EVERY = 32
# What was not timed for so many steps costs at most this share of the target's fixed part in a trial: little enough to be tried.
UNTIMED_STEPS = 1024
TRIAL_SHARE = 0.1
# Costs that have changed by a smaller share are left as they are: plans would hardly change, and all of them would be made anew.
CHANGED = 0.04
# Its multiples fall evenly into every interval, in step with nothing: every fourth step might be the last of a list each time.
GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class StepTimes:
    """The time of one engine step.

    Attributes:
        target_tokens, target_seconds: tokens and time of the target's forward, with preparation and reading of results.
        draft_forwards, draft_tokens, draft_seconds: forwards, tokens and time of drafting, and of learning from what was proposed.
        levels: levels that were verified beyond the first.
        searches, last_seconds: searches that began to look for what their users were last given, and the time of all that do.
        children: how often children were drafted, for all that did so together; 0 where the draft was asked as well.
        parents, children_seconds: searches whose children were drafted, each time counted, and the time of it all, with the decisions.
    """

    target_tokens: int
    target_seconds: float
    draft_forwards: int
    draft_tokens: int
    draft_seconds: float
    levels: int = 0
    searches: int = 0
    last_seconds: float = 0.0
    children: int = 0
    parents: int = 0
    children_seconds: float = 0.0


class RunningCurve:
    """A cost curve that follows forwards as they are run, so that a machine that has become faster or slower is noticed.

    Least squares of relative errors: an interruption makes a forward longer, and a long forward weighs little. Old forwards fade; what was
    measured at first stays as a prior worth a few forwards, which keeps the numbers apart while all forwards are alike. How many tokens are
    free stays as measured: it is a matter of the device, and no load changes it.
    """

    def __init__(self, start: CostCurve, level: float = 0.0) -> None:
        """`level`: seconds for each further level that is verified behind a forward, as first measured."""
        self._free = start.free
        self._prior, self._seen = [0.0] * 9, [0.0] * 9
        for tokens in PRIOR_TOKENS:
            for levels in (0, 1):
                _accumulate(self._prior, (1, tokens, levels), start.seconds(start.free + tokens) + levels * level, 1.0, PRIOR_WEIGHT)

    def add(self, forwards: int, tokens: int, seconds: float, levels: int = 0) -> None:
        """Note forwards, about equally long ones, that took so many seconds together, with the further levels that were verified."""
        _accumulate(self._seen, (forwards, max(tokens - forwards * self._free, 0.0), levels), seconds, FADING)

    def fit(self) -> tuple[CostCurve, float]:
        """The curve through what was seen last, and the seconds of a further level."""
        ff, ft, fl, tt, tl, ll, *sums = (seen + prior for seen, prior in zip(self._seen, self._prior, strict=True))
        found = np.linalg.solve(np.array([[ff, ft, fl], [ft, tt, tl], [fl, tl, ll]]), np.array(sums))
        fixed, per_token, level = np.maximum(found, 0.0).tolist()
        return CostCurve(fixed, per_token, self._free), level


def _accumulate(sums: list[float], parts: tuple[float, float, float], seconds: float, fading: float, weight: float = 1.0) -> None:
    """Add one row of the normal equations; plain numbers, because this runs in every step and numpy would take longer than the sums."""
    fixed, length, levels = (part / max(seconds, SHORTEST) for part in parts)
    squares = (fixed * fixed, fixed * length, fixed * levels, length * length, length * levels, levels * levels)
    for index, value in enumerate((*squares, fixed, length, levels)):
        sums[index] = sums[index] * fading + weight * value


class RunningMean:
    """The mean of values that are told in steps, some values each or none, of which old ones fade.

    Attributes:
        seen: number of values.
    """

    def __init__(self) -> None:
        self.seen = 0.0
        self._sum = 0.0

    def add(self, count: int, total: float) -> None:
        """Add a step of so many values with a sum."""
        self.seen, self._sum = FADING * self.seen + count, FADING * self._sum + total

    @property
    def mean(self) -> float:
        """0 before anything was added."""
        return self._sum / self.seen if self.seen else 0.0


class RunningShare:
    """How many times as long as at first something takes; the first measurement counts as one of each value that is told."""

    def __init__(self) -> None:
        self._expected, self._seen = 0.0, 0.0

    def add(self, expected: float, seconds: float) -> None:
        """Note what took so many seconds, and would have taken `expected` at first; an interruption is cut off."""
        if not self._expected:
            self._expected = self._seen = expected
        self._expected, self._seen = FADING * self._expected + expected, FADING * self._seen + min(seconds, OUTLIER * expected * self.share)

    @property
    def share(self) -> float:
        """1 before anything was told."""
        return self._seen / self._expected if self._expected else 1.0


class RunningCosts:
    """All costs of a machine.

    Attributes:
        costs: as they were last looked at.
    """

    def __init__(self, costs: ForwardCosts) -> None:
        self.costs = costs
        self._target = RunningCurve(costs.target, costs.level)
        self._draft = RunningCurve(costs.draft) if costs.draft else None
        self._last, self._last_of_steps = RunningMean(), RunningMean()
        self._first_costs, self._children = costs, RunningShare()
        self._steps = self._plain_steps = 0
        # Steps since the last one that told what it takes.
        self._untimed = {"draft": 0, "children": 0, "level": 0}

    def lose_draft(self) -> None:
        """Go on without a draft."""
        self.costs, self._draft = replace(self.costs, draft=None), None

    def on_trial(self, costs: ForwardCosts) -> ForwardCosts:
        """Costs by which a trial is planned: what was not timed for long may be cheaper than it is believed to be."""
        overdue = {name for name, steps in self._untimed.items() if steps >= UNTIMED_STEPS}
        if not overdue:
            return costs
        target, draft, most = costs.target, costs.draft, TRIAL_SHARE * costs.target.fixed
        if draft and "draft" in overdue:
            draft = CostCurve(min(draft.fixed, most), min(draft.per_token, target.per_token), draft.free)
        children = most if "children" in overdue else np.inf
        return replace(
            costs,
            draft=draft,
            level=min(costs.level, most) if "level" in overdue else costs.level,
            children=min(costs.children, children),
            further_children=min(costs.further_children, children),
        )

    def add(self, times: StepTimes) -> bool:
        """Note one step; True if forwards cost something else now, so that plans may differ."""
        self._steps += 1
        overdue = {name for name, steps in self._untimed.items() if steps >= UNTIMED_STEPS}
        self._untimed = {name: steps + 1 for name, steps in self._untimed.items()}
        if times.last_seconds:
            steps = self._last_of_steps
            seconds = min(times.last_seconds, OUTLIER * steps.mean) if steps.seen >= FEWEST_STEPS else times.last_seconds
            steps.add(1, seconds)
            self._last.add(times.searches, seconds)
        if times.children:
            self._children.add(self._first_costs.children_together(times.children, times.parents), times.children_seconds)
            self._untimed["children"] = 0
        # Steps that verify one level alone are few where drafting pays, and tell apart what a forward takes and what levels do.
        self._plain_steps = 0 if times.levels else self._plain_steps + 1
        is_timed = 0 < self._plain_steps <= ALL_TIMED or self._steps * GOLDEN_RATIO % 1 < TIMED_SHARE
        if is_timed or (times.levels and "level" in overdue):
            self._target.add(1, times.target_tokens, times.target_seconds, times.levels)
            self._untimed["level"] = 0 if times.levels else self._untimed["level"]
        if self._draft and times.draft_forwards and (is_timed or "draft" in overdue):
            self._draft.add(times.draft_forwards, times.draft_tokens, times.draft_seconds)
            self._untimed["draft"] = 0
        if self._steps % LOOK_AT_TIMES_EVERY:
            return False
        before = self.costs
        self.costs = replace(before, last=self._last.mean)
        target, level = self._target.fit()
        draft = self._draft.fit()[0] if self._draft else None
        children, further = (self._children.share * each for each in (self._first_costs.children, self._first_costs.further_children))
        beside = abs(level - before.level) + abs(children - before.children)
        is_same = beside < CHANGED * target.fixed and not target.differs(before.target, CHANGED)
        if is_same and not (draft and before.draft and draft.differs(before.draft, CHANGED)):
            return False
        self.costs = replace(self.costs, target=target, level=level, draft=draft, children=children, further_children=further)
        return True
