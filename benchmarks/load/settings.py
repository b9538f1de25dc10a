"""Settings of one load run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadSettings:
    """Settings of a load run; the defaults are those of the standard measurement.

    Attributes:
        rate: requests a second.
        seconds: measured time.
        warmup_seconds: time before it, in which requests are sent and not counted.
        k: identifiers of a list.
        timeouts_ms: the shortest and the longest timeout of a request, drawn evenly between them.
        growth: the share of lists after which the user takes one of the items.
        hang_ups: the share of requests whose client gives up, at any time before the timeout.
        seed: of all that is drawn.
    """

    rate: float
    seconds: float
    warmup_seconds: float = 0.0
    k: int = 10
    timeouts_ms: tuple[int, int] = (1000, 1000)
    growth: float = 0.5
    hang_ups: float = 0.0
    seed: int = 0
