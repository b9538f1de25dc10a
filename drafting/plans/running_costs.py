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

# The first measurement counts as one forward of each of these numbers of tokens, beyond the free ones: half of it with a further level
# to verify, half without.
PRIOR_TOKENS = (1, 16, 64, 256)
PRIOR_WEIGHT = 0.5
# After about 200 forwards, one weighs a third of a new one.
FADING = 0.995
# What takes longer than so many times the mean, once so many steps were seen, was interrupted.
OUTLIER = 4.0
FEWEST_STEPS = 8
# Of the steps that verify several levels, this share is timed. Those that verify one level are all timed at first, but after so many of
# them in a row the same share only. After so many steps of both kinds the costs are looked at anew.
TIMED_SHARE = 0.25
ALL_TIMED = 8
LOOK_AT_TIMES_EVERY = 32
# In a trial, what was not timed for so many steps counts as at most this share of the target's fixed part: cheap enough to be tried.
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
        draft_forwards, draft_tokens, draft_seconds: forwards and tokens of the draft, and the time of drafting and of learning from it.
        levels: number of levels that were verified after the first.
        searches: number of searches that began in this step and looked for their users' last lists.
        last_seconds: time that last lists took in this step, for all searches.
        children: how often children were drafted, each time for all searches that wanted them; 0 if the draft was asked as well.
        parents: number of searches for which children were drafted, over all these times.
        children_seconds: time of drafting children, decisions included.
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
        """`level`: first measurement of the seconds that each further level takes to verify after a forward."""
        self._free = start.free
        self._prior, self._seen = [0.0] * 9, [0.0] * 9
        for tokens in PRIOR_TOKENS:
            for levels in (0, 1):
                _accumulate(self._prior, (1, tokens, levels), start.seconds(start.free + tokens) + levels * level, 1.0, PRIOR_WEIGHT)

    def add(self, forwards: int, tokens: int, seconds: float, levels: int = 0) -> None:
        """Note forwards of about the same length, with their tokens, their seconds and further levels verified, each over all of them."""
        _accumulate(self._seen, (forwards, max(tokens - forwards * self._free, 0.0), levels), seconds, FADING)

    def fit(self) -> tuple[CostCurve, float]:
        """The curve through what was seen lately, and the seconds of a further level."""
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
    """The mean of values that are added step by step, any number in each step; old ones fade.

    Attributes:
        seen: number of values, of which old ones count less.
    """

    def __init__(self) -> None:
        self.seen = 0.0
        self._sum = 0.0

    def add(self, count: int, total: float) -> None:
        """Add a step with `count` values, whose sum is `total`."""
        self.seen, self._sum = FADING * self.seen + count, FADING * self._sum + total

    @property
    def mean(self) -> float:
        """The mean; 0 before anything was added."""
        return self._sum / self.seen if self.seen else 0.0


class RunningShare:
    """How many times as long something takes now as when it was first measured; that measurement counts as one value."""

    def __init__(self) -> None:
        self._expected, self._seen = 0.0, 0.0

    def add(self, expected: float, seconds: float) -> None:
        """Note that something took so many seconds, where by the first measurement `expected` would do; interruptions are cut short."""
        if not self._expected:
            self._expected = self._seen = expected
        self._expected, self._seen = FADING * self._expected + expected, FADING * self._seen + min(seconds, OUTLIER * expected * self.share)

    @property
    def share(self) -> float:
        """The ratio; 1 before anything was noted."""
        return self._seen / self._expected if self._expected else 1.0


class RunningCosts:
    """All costs of a machine.

    Attributes:
        costs: the costs as of the last look.
    """

    def __init__(self, costs: ForwardCosts) -> None:
        self.costs = costs
        self._target = RunningCurve(costs.target, costs.level)
        self._draft = RunningCurve(costs.draft) if costs.draft else None
        self._last, self._last_of_steps = RunningMean(), RunningMean()
        self._first_costs, self._children = costs, RunningShare()
        self._steps = self._plain_steps = 0
        # For each cost, the number of steps since one was last timed for it.
        self._untimed = {"draft": 0, "children": 0, "level": 0}

    def lose_draft(self) -> None:
        """Go on without a draft."""
        self.costs, self._draft = replace(self.costs, draft=None), None

    def on_trial(self, costs: ForwardCosts) -> ForwardCosts:
        """Costs by which a trial is planned: what was not timed for long may be cheaper than it is believed to be."""
        overdue = self._overdue
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
        overdue = self._overdue
        self._untimed = {name: steps + 1 for name, steps in self._untimed.items()}
        if times.last_seconds:
            self._add_last(times)
        if times.children:
            self._children.add(self._first_costs.children_together(times.children, times.parents), times.children_seconds)
            self._untimed["children"] = 0
        self._add_forwards(times, overdue)
        return self._steps % LOOK_AT_TIMES_EVERY == 0 and self._look()

    @property
    def _overdue(self) -> set[str]:
        """The costs for which no step was timed for long."""
        return {name for name, steps in self._untimed.items() if steps >= UNTIMED_STEPS}

    def _add_last(self, times: StepTimes) -> None:
        """Note what users' last lists took in a step; interruptions are cut short."""
        steps = self._last_of_steps
        seconds = min(times.last_seconds, OUTLIER * steps.mean) if steps.seen >= FEWEST_STEPS else times.last_seconds
        steps.add(1, seconds)
        self._last.add(times.searches, seconds)

    def _add_forwards(self, times: StepTimes, overdue: set[str]) -> None:
        """Note the forwards of a step that is one of those to time, or tells of a cost that is `overdue`."""
        # Steps that verify one level alone are few where drafting pays, and tell apart what a forward takes and what levels do.
        self._plain_steps = 0 if times.levels else self._plain_steps + 1
        is_timed = 0 < self._plain_steps <= ALL_TIMED or self._steps * GOLDEN_RATIO % 1 < TIMED_SHARE
        if is_timed or (times.levels and "level" in overdue):
            self._target.add(1, times.target_tokens, times.target_seconds, times.levels)
            self._untimed["level"] = 0 if times.levels else self._untimed["level"]
        if self._draft and times.draft_forwards and (is_timed or "draft" in overdue):
            self._draft.add(times.draft_forwards, times.draft_tokens, times.draft_seconds)
            self._untimed["draft"] = 0

    def _look(self) -> bool:
        """Work the costs out anew; True if plans may differ by them. Those that have hardly changed stay, but for that of last lists."""
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
