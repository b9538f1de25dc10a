"""The report of a load run.

Invariant: rates are requests that were *due* in the measured time, by what became of them, divided by that time; so offered is the sum of
all outcomes, and a server that falls behind can't look better by answering after the end.
"""

import math
from typing import TYPE_CHECKING

import msgspec

from benchmarks.load.counters import Counters, Outcome
from benchmarks.load.histogram import LatencyHistogram

if TYPE_CHECKING:
    from benchmarks.load.settings import LoadSettings

# Lists in time from this share of the requests on are a server that keeps up.
KEEPS_UP = 0.95


class LoadReport(msgspec.Struct, kw_only=True):
    """One run's figures; times in milliseconds, of lists unless they say otherwise, None where there is nothing to time.

    Attributes:
        offered_rps, completed_rps, goodput_rps: requests a second: due, answered with a list, and that within their timeout.
        p50_ms, …: of all lists, also late ones, from the moment at which the request was due.
        refused: answers with 429.
        refused_p99_ms: how long a refusal took.
        late: lists that came after their timeout.
        timed_out, unavailable: answers with 504, 503.
        errors: any other answer, or none; `mistakes` says which.
        hung_up: requests given up on purpose.
        cached_token_share: of prompt tokens, those that were not computed again.
        cache_hit_rate: share of lists of which some of the prompt was cached.
        events_stored, events_refused, events_lost: appended; not taken by the server; taken, and not in the history.
        generator_lag_p99_ms, generator_lag_max_ms: how late the generator itself was; when these are not small, it was the bottleneck.
    """

    url: str
    rate: float
    seconds: float
    warmup_seconds: float
    k: int
    timeouts_ms: tuple[int, int]
    offered_rps: float
    completed_rps: float
    goodput_rps: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    requests: int
    on_time: int
    late: int
    refused: int
    timed_out: int
    unavailable: int
    hung_up: int
    errors: int
    mistakes: dict[str, int]
    refused_p50_ms: float | None
    refused_p99_ms: float | None
    refused_max_ms: float | None
    cached_token_share: float | None
    cache_hit_rate: float | None
    events_stored: int
    events_refused: int
    events_lost: int
    generator_lag_p50_ms: float | None
    generator_lag_p99_ms: float | None
    generator_lag_max_ms: float | None

    @property
    def keeps_up(self) -> bool:
        """True if almost all requests got a list in time, those aside that were given up on purpose."""
        return self.on_time >= KEEPS_UP * (self.requests - self.hung_up)


def make_report(url: str, settings: "LoadSettings", counters: Counters, stored: int, refused: int, lost: int) -> LoadReport:
    """The report of a run; `stored`, `refused` and `lost` are events."""
    outcomes, seconds = counters.outcomes, settings.seconds
    lists = outcomes[Outcome.ON_TIME] + outcomes[Outcome.LATE]
    counts = {outcome.value: number for outcome, number in outcomes.items()}
    return LoadReport(
        url=url,
        rate=settings.rate,
        seconds=seconds,
        warmup_seconds=settings.warmup_seconds,
        k=settings.k,
        timeouts_ms=settings.timeouts_ms,
        offered_rps=round(sum(outcomes.values()) / seconds, 3),
        completed_rps=round(lists / seconds, 3),
        goodput_rps=round(outcomes[Outcome.ON_TIME] / seconds, 3),
        mean_ms=_milliseconds(counters.answered.mean),
        p50_ms=_percentile(counters.answered, 50),
        p90_ms=_percentile(counters.answered, 90),
        p95_ms=_percentile(counters.answered, 95),
        p99_ms=_percentile(counters.answered, 99),
        p999_ms=_percentile(counters.answered, 99.9),
        max_ms=_percentile(counters.answered, 100),
        requests=sum(outcomes.values()),
        **counts,
        mistakes=counters.mistakes,
        refused_p50_ms=_percentile(counters.refused, 50),
        refused_p99_ms=_percentile(counters.refused, 99),
        refused_max_ms=_percentile(counters.refused, 100),
        cached_token_share=round(counters.cached_tokens / counters.prompt_tokens, 4) if counters.prompt_tokens else None,
        cache_hit_rate=round(counters.warm_lists / lists, 4) if lists else None,
        events_stored=stored,
        events_refused=refused,
        events_lost=lost,
        generator_lag_p50_ms=_percentile(counters.lag, 50),
        generator_lag_p99_ms=_percentile(counters.lag, 99),
        generator_lag_max_ms=_percentile(counters.lag, 100),
    )


def _percentile(histogram: LatencyHistogram, percent: float) -> float | None:
    return _milliseconds(histogram.percentile(percent))


def _milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 3)
