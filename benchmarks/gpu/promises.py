"""Promised figures for a GPU of the H100 class, and the check that a run of `make bench-gpu` keeps them.

Invariant: a promise is judged by the very case that it names; a run without this case says nothing of it.
"""

from collections.abc import Sequence

from benchmarks.gpu.timing import WIDE, Timing

# The best plan's batch of 8 searches of width 256 after prompts of 1,000 tokens, of identifiers of three tokens.
WIDE_MS = 80.0
# The planner against plain beam search, one request at a time, by list length; and anywhere.
STRICT_SPEED_UP = {1: 2.3, 3: 1.9, 5: 1.8, 10: 1.8, 20: 1.8}
LEAST_SPEED_UP = 0.98


def judge_promises(timings: Sequence[Timing]) -> list[str]:
    """A sentence for each promise whose case was timed."""
    found = []
    if wide := [row for row in timings if (row.shape, row.prompt, row.batch, row.k) == (f"qwen3-1.7b{WIDE}", 1000, 8, 256)]:
        best = min(wide, key=lambda row: row.batch_p50_ms)
        sentence = f"Eight searches of width 256 after 1,000 tokens take {best.batch_p50_ms:.1f} ms ({best.plan}), promised are under"
        found.append(_judged(f"{sentence} {WIDE_MS:g} ms", best.batch_p50_ms < WIDE_MS))
    planned = [row for row in timings if row.plan.startswith("auto")]
    for row in planned:
        if (row.shape, row.batch) == ("llama-7b", 1) and (promised := STRICT_SPEED_UP.get(row.k)):
            sentence = f"llama-7b, prompt {row.prompt}, k {row.k}: the planner is {row.speed_up:.2f} times as fast as plain beam search"
            found.append(_judged(f"{sentence}, promised is {promised:g}", row.speed_up >= promised))
    if planned:
        least = min(row.speed_up for row in planned)
        sentence = f"Nowhere is the planner slower than {least:.2f} times plain beam search"
        found.append(_judged(f"{sentence}, promised is {LEAST_SPEED_UP:g}", least >= LEAST_SPEED_UP))
    return found


def _judged(sentence: str, kept: bool) -> str:
    return f"{'Kept' if kept else 'MISSED'}: {sentence}."
