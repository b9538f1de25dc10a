"""One line of a report on scripted searches. Invariant: reading and printing it needs no torch."""

from dataclasses import dataclass

from drafting.errors import first_line

# Ends the name of a shape whose catalog is replaced by the one of three levels.
WIDE = ", three levels"
COLUMNS = (
    *("shape", "prompt", "batch", "k", "plan", "turns", "batch p50 ms", "batch p99 ms", "ms to a list"),
    *("target forwards", "draft forwards", "tokens", "recorded", "speed-up"),
)


@dataclass(frozen=True)
class Timing:
    """One line of the report; batches are milliseconds from adding their requests to the last list, means are per request.

    Attributes:
        turns: how many batches were timed.
        batch_p99_ms: None if they are too few for it.
        request_ms: mean time to a request's own list.
        target_tokens: tokens in the target's forwards, the prompt's included.
        recorded_tokens: what the recorded searches would have computed with a prompt of this length; scripted ones salvage a little more
            or less of their rejected drafts.
        speed_up: plain beam search's `batch_p50_ms` over this one's.
    """

    shape: str
    prompt: int
    batch: int
    k: int
    plan: str
    turns: int
    batch_p50_ms: float
    batch_p99_ms: float | None
    request_ms: float
    target_forwards: float
    draft_forwards: float
    target_tokens: float
    recorded_tokens: float
    speed_up: float


def timing_cells(row: Timing) -> tuple[object, ...]:
    """A timing's cells under `COLUMNS`."""
    return (
        row.shape,
        row.prompt,
        row.batch,
        row.k,
        row.plan,
        row.turns,
        f"{row.batch_p50_ms:.2f}",
        "" if row.batch_p99_ms is None else f"{row.batch_p99_ms:.2f}",
        f"{row.request_ms:.2f}",
        f"{row.target_forwards:.2f}",
        f"{row.draft_forwards:.2f}",
        f"{row.target_tokens:.0f}",
        f"{row.recorded_tokens:.0f}",
        f"{row.speed_up:.2f}",
    )


def failure(error: Exception) -> str:
    """Why something could not be timed, as a sentence: a compiler's errors say little without their class."""
    return f"{type(error).__name__}: {first_line(error)}"
