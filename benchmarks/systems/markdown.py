"""A benchmark's report as Markdown tables, in the form of `docs/results/bench.md`.

Invariant: every cell is a row of the report; a setting that was not measured is an empty cell, never a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from benchmarks.markdown import markdown_table
from benchmarks.systems.interleaved import Row
from benchmarks.systems.plot import label
from benchmarks.systems.question import PLAIN


def tables(rows: Sequence[Row]) -> str:
    """For each concurrency two tables: times, with their ratios to plain search on the first host; forwards, tokens and equal lists."""
    parts = []
    for concurrency in dict.fromkeys(row.concurrency for row in rows):
        shown = [row for row in rows if row.concurrency == concurrency]
        plain = {row.k: row.p50_ms for row in reversed(shown) if (row.system, row.plan) == (rows[0].system, PLAIN)}
        title = "One request at a time" if concurrency == 1 else f"{concurrency} requests at once"
        parts.append(f"**{title}**, p50 / p99 in ms (and p50 over that of the first line):")
        parts.append(_table(shown, partial(_time, plain)))
        if concurrency > 1:
            parts += ["Lists per second:", _table(shown, lambda row: f"{row.lists_per_s:.0f}")]
        parts.append("Target forwards, tokens in them, and lists equal to those of the first line of all:")
        parts.append(_table(shown, _cost))
    return "\n\n".join(parts) + "\n"


def _time(plain: Mapping[int, float], row: Row) -> str:
    return f"{row.p50_ms:.1f} / {row.p99_ms:.1f} ({row.p50_ms / plain[row.k]:.2f}x)"


def _cost(row: Row) -> str:
    tokens = f", {row.tokens:.0f}" if row.tokens else ""
    return f"{row.target_forwards:.2f}{tokens}; {row.lists_equal}"


def _table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    """One line per system and plan, one column per k."""
    ks = list(dict.fromkeys(row.k for row in rows))
    cells = {(label(row), row.k): cell(row) for row in rows}
    lines = ((name, *(cells.get((name, k), "") for k in ks)) for name in dict.fromkeys(map(label, rows)))
    return markdown_table(("system, plan", *(f"K = {k}" for k in ks)), lines)
