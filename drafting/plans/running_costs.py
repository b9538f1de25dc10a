"""Running costs: costs that follow the steps of an engine, so that a machine that has become faster or slower is noticed.

Invariant: each second of a step is counted once, where it arises. What verifying accepted levels takes belongs to these, what learning from
a draft's proposals takes to the draft's forward, and what looking at last lists takes to the searches that do; were they in the
target's forwards, drafting would seem to save what it costs.
"""

from dataclasses import dataclass, replace

from drafting.plans.costs import SHORTEST, CostCurve, ForwardCosts

# Sizes at which a first measurement counts as one forward each, on top of what is free.
PRIOR_TOKENS = (1, 16, 64, 256)
# After about 200 forwards, one weighs a third of a new one.
FADING = 0.995
# What takes longer than so many times the mean of steps, when some were seen, was interrupted.
OUTLIER = 4.0
FEWEST_STEPS = 8
# Of the steps that are run, this share is timed, and after so many the costs are looked at anew.
TIMED_SHARE = 0.25
LOOK_AT_TIMES_EVERY = 32
# Its multiples fall evenly into every interval, in step with nothing: every fourth step might be the last of a list each time.
GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class StepTimes:
    """The time of one engine step.

    Attributes:
        target_tokens, target_seconds: tokens and time of the target's forward, with preparation and reading of results.
        draft_forwards, draft_tokens, draft_seconds: forwards, tokens and time of drafting, and of learning from what was proposed.
        levels: levels that were verified beyond the first.
        searches, last_seconds: searches that began to look at what their users were last given, and the time of all that do.
    """

    target_tokens: int
    target_seconds: float
    draft_forwards: int
    draft_tokens: int
    draft_seconds: float
    levels: int = 0
    searches: int = 0
    last_seconds: float = 0.0


class RunningCurve:
    """A cost curve that follows forwards as they are run, so that a machine that has become faster or slower is noticed.

    Least squares of relative errors: an interruption makes a forward longer, and a long forward weighs little. Old forwards fade; what was
    measured at first stays as a prior worth a few forwards, which keeps the two numbers apart while all forwards are of one size. How
    many tokens are free stays as measured: it is a matter of the device, and no load changes it.
    """

    def __init__(self, start: CostCurve) -> None:
        self._free = start.free
        self._prior = [0.0] * 5
        for tokens in PRIOR_TOKENS:
            _accumulate(self._prior, 1, tokens, start.seconds(start.free + tokens), 1.0)
        self._seen = [0.0] * 5

    def add(self, forwards: int, tokens: int, seconds: float) -> None:
        """Note forwards, about equally long ones, that took so many seconds together."""
        _accumulate(self._seen, forwards, max(tokens - forwards * self._free, 0.0), seconds, FADING)

    def curve(self) -> CostCurve:
        """The curve through what was seen last."""
        ff, ft, tt, f, t = (seen + prior for seen, prior in zip(self._seen, self._prior, strict=True))
        determinant = ff * tt - ft * ft
        return CostCurve(max((f * tt - t * ft) / determinant, 0.0), max((t * ff - f * ft) / determinant, 0.0), self._free)


def _accumulate(sums: list[float], forwards: int, tokens: float, seconds: float, fading: float) -> None:
    """Add one row of the normal equations; plain numbers, because this runs in every step and numpy would take longer than the sums."""
    fixed, length = forwards / max(seconds, SHORTEST), tokens / max(seconds, SHORTEST)
    for index, value in enumerate((fixed * fixed, fixed * length, length * length, fixed, length)):
        sums[index] = sums[index] * fading + value


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


class RunningCosts:
    """All costs of a machine.

    Attributes:
        costs: as they were last looked at.
    """

    def __init__(self, costs: ForwardCosts) -> None:
        self.costs = costs
        self._target = RunningCurve(costs.target)
        self._draft = RunningCurve(costs.draft) if costs.draft else None
        self._last, self._last_of_steps = RunningMean(), RunningMean()
        self._steps = 0

    def add(self, times: StepTimes) -> bool:
        """Note one step; True if forwards cost something else now, so that plans may differ."""
        self._steps += 1
        if times.last_seconds:
            steps = self._last_of_steps
            seconds = min(times.last_seconds, OUTLIER * steps.mean) if steps.seen >= FEWEST_STEPS else times.last_seconds
            steps.add(1, seconds)
            self._last.add(times.searches, seconds)
        if self._steps * GOLDEN_RATIO % 1 < TIMED_SHARE:
            self._target.add(1, times.target_tokens, max(times.target_seconds - times.levels * self.costs.level, 0.0))
            if self._draft and times.draft_forwards:
                self._draft.add(times.draft_forwards, times.draft_tokens, times.draft_seconds)
        if self._steps % LOOK_AT_TIMES_EVERY:
            return False
        before = self.costs
        self.costs = replace(before, last=self._last.mean)
        target = self._target.curve()
        draft = self._draft.curve() if self._draft else None
        if not (target.differs(before.target) or (draft and before.draft and draft.differs(before.draft))):
            return False
        self.costs = replace(self.costs, target=target, draft=draft)
        return True
