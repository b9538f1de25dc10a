"""The speed of the engine, learned from its step reports.

Work is counted in tokens as the API process can foresee them: those of the prompt, of the text before the list and of the beams. Two
factors turn them into seconds: how many tokens of forwards a foreseen token comes to (fewer where prompts are cached, more where drafts are
tried), and how long a token takes in a full step.

Invariants: (1) Requests that run one after the other are enough to correct any belief. A full step takes no longer per token than a
half-empty one, and a step no longer than the longest of those just seen, so each look at the steps bounds both factors from above at once.
Reason: requests that are refused because the engine is believed to be slow can't show that it is fast, so one slow measurement, or one step
in which the machine stood still, must not last.

(2) Upwards, the time per token is learned only from steps of a full engine: those in which a request had to wait. A half-empty step takes
longer per token, which says nothing of what a queue will take. Compared with the measured curve, it does say how fast the machine is now.
That too counts only if it is good news, and brings back at most what was measured while the engine loaded.
"""

import math
from collections import deque
from dataclasses import dataclass

from server.messages import FinishedList, Progress, Ready, StepRecord
from server.scheduling.rounds import CappedRounds
from server.submit import TOKEN_BYTES, Submit

# Seconds of work after which what was learned before counts for a third.
_MEMORY_SECONDS = 2.0
# A look ends after either; so many steps that one odd step does not pass for a fast engine, and so few that two requests make a look.
_LOOK_SECONDS = 0.2
_LOOK_STEPS = 8
# A step takes a whole request, however small the budget of steps is; of a small one this many tokens share a forward.
_LEAST_STEP_TOKENS = 16
_LIST_SHARE = 0.05


@dataclass
class _Look:
    """Some steps that ran one after the other, added up.

    Attributes:
        crowded_seconds: seconds of the steps in which a request had to wait.
    """

    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    crowded_seconds: float = 0.0

    def add(self, step: StepRecord) -> None:
        """Take in one more step."""
        self.seconds += step.elapsed_seconds
        self.tokens += step.report.tokens
        self.steps += 1
        self.crowded_seconds += step.crowded * step.elapsed_seconds

    @property
    def is_over(self) -> bool:
        """True once the steps are enough to conclude from."""
        return self.seconds > _LOOK_SECONDS or self.steps >= _LOOK_STEPS


class EngineRate:
    """The cost of the engine's work in seconds; starts from the cost curve that the engine measured while loading.

    Attributes:
        step_seconds: current duration of steps.
    """

    def __init__(self, ready: Ready) -> None:
        self._identifier_length = ready.identifier_length
        # As measured while the engine loaded: a forward, each token in it, and a token of a full step with its part of the forward.
        self._forward_seconds = ready.forward_seconds
        self._added_token_seconds = ready.token_seconds
        self._measured_token_seconds = ready.token_seconds + ready.forward_seconds / max(ready.step_tokens, _LEAST_STEP_TOKENS)
        # As learned since then: a step, a token of a full step, tokens of forwards for each foreseen token, forwards of one search.
        self.step_seconds = ready.forward_seconds
        self._token_seconds = self._measured_token_seconds
        self._tokens_per_work = 1.0
        self._round_forwards = float(ready.identifier_length)
        self._capped_rounds = CappedRounds()
        # Tokens of a prompt that are of no item: at first, the one that every prompt has.
        self._frame_tokens = 1.0
        # Nothing is known of texts yet: as if there had been one, as long as it may be.
        self._text_share, self._texts = 1.0, 1
        # Nothing is known of stored histories yet: as if all were longer than the model reads.
        self._stored_items = ready.max_items + 1.0
        self._look = _Look()
        self._newest_seconds: deque[float] = deque(maxlen=_LOOK_STEPS)

    def work(self, request: Submit, items: int | None = None) -> int:
        """The tokens that a request is foreseen to need, those of a text and of candidates to score aside.

        Args:
            items: the length of its history where that is not in it yet.
        """
        return self.prompt_tokens(request, items) + round(self._rounds(request) * self._beams(request))

    def prompt_tokens(self, request: Submit, items: int | None = None) -> int:
        """The tokens of a request's prompt; foreseen by its items, and by what other prompts have beside them, until it is built."""
        if request.prompt:
            return len(request.prompt) // TOKEN_BYTES
        items = len(request.history) if items is None else items
        return max(1, round(items * self._identifier_length + self._frame_tokens))

    def text_tokens(self, request: Submit) -> int:
        """The tokens of text that a request is foreseen to write before its list, a forward each."""
        return round(self._text_share * request.think)

    def scored_tokens(self, request: Submit) -> int:
        """The tokens of a request's candidates, if it is for scores."""
        return 0 if request.scored is None else request.scored.prefixes

    def queue_seconds(self, work: float) -> float:
        """Seconds that a busy engine takes for so much work."""
        return work * self._tokens_per_work * self._token_seconds

    def steps(self, request: Submit, text_tokens: int) -> float:
        """Steps that a request takes, with one for each token of its text."""
        return text_tokens + self._rounds(request) * self._round_forwards

    @property
    def idle_step_seconds(self) -> float:
        """Duration of the steps of an idle engine."""
        return min(self._forward_seconds, self.step_seconds)

    def alone_seconds(self, request: Submit, work: float, text_tokens: int) -> float:
        """Seconds that an idle engine takes for one request."""
        return self.steps(request, text_tokens) * self.idle_step_seconds + self.queue_seconds(work)

    def shared_seconds(self, request: Submit, text_tokens: int) -> float:
        """Seconds of a request whose steps are shared with others, as full as they are now."""
        return self.steps(request, text_tokens) * self.step_seconds

    @property
    def stored_items(self) -> int:
        """Expected length of a stored history that has not been read yet."""
        return round(self._stored_items)

    def learn(self, progress: Progress) -> None:
        """Take over what the steps of a report have cost."""
        for step in progress.steps:
            self._newest_seconds.append(step.elapsed_seconds)
            self.step_seconds += 0.2 * (step.elapsed_seconds - self.step_seconds)
            if len(self._newest_seconds) == _LOOK_STEPS:
                self.step_seconds = min(self.step_seconds, max(self._newest_seconds))
            self._look.add(step)
            if self._look.is_over:
                self._conclude(self._look)
                self._look = _Look()

    def learn_list(self, finished: FinishedList, request: Submit) -> None:
        """Take over what one list has cost in tokens and forwards."""
        usage = finished.result.usage
        text, beams = usage.thought_tokens, usage.rounds * self._beams(request)
        computed = usage.prompt_tokens - usage.cached_tokens + text + usage.drafted_nodes - usage.used_nodes + beams
        computed += (scored := self.scored_tokens(request))
        foreseen = self.prompt_tokens(request) + beams + self.text_tokens(request) + scored
        self._tokens_per_work += _LIST_SHARE * (max(computed, 1) / foreseen - self._tokens_per_work)
        if not scored:
            self._round_forwards += _LIST_SHARE * ((usage.target_forwards - text) / usage.rounds - self._round_forwards)
        if request.diversity:
            self._capped_rounds.learn(request, usage.rounds)
        if request.think:
            self._texts += 1
            self._text_share += max(_LIST_SHARE, 1 / self._texts) * (text / request.think - self._text_share)
        self._frame_tokens += _LIST_SHARE * (usage.prompt_tokens - len(request.history) * self._identifier_length - self._frame_tokens)
        if request.user is not None:
            self._stored_items += _LIST_SHARE * (len(request.history) - self._stored_items)

    def _rounds(self, request: Submit) -> float:
        """Searches that a request is foreseen to take, one after the other."""
        return self._capped_rounds.expected(request) if request.diversity else 1.0

    def _beams(self, request: Submit) -> int:
        """Tokens of a round's beams and candidates; reserved places take a search of their own."""
        if request.scored is not None:
            return 0
        candidates = 0 if request.blend is None else request.blend.count
        beams = sum(request.beam_widths) if request.beam_widths else request.beam_width * (self._identifier_length - 1)
        return (1 if request.fresh is None else 2) * beams + candidates * (self._identifier_length - 1)

    def _conclude(self, look: _Look) -> None:
        """Take over what a look saw, if it tells of a full engine, or if it is good news."""
        if not look.tokens:
            return
        seen = look.seconds / look.tokens
        if 2 * look.crowded_seconds <= look.seconds:
            self._token_seconds = min(self._token_seconds, seen)
            foreseen = look.steps * self._forward_seconds + look.tokens * self._added_token_seconds
            slowdown = max(1.0, look.seconds / foreseen) if foreseen else math.inf
            seen = min(self._token_seconds, slowdown * self._measured_token_seconds)
        self._token_seconds += (1 - math.exp(-look.seconds / _MEMORY_SECONDS)) * (seen - self._token_seconds)
