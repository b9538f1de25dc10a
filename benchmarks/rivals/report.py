"""A run's rows as tables: on the terminal, and as Markdown in the form of `docs/results/rivals.md`."""

from collections.abc import Sequence

from benchmarks.markdown import markdown_table
from benchmarks.rivals.entrants import OURS
from benchmarks.rivals.masks import MaskRow
from benchmarks.rivals.run import Report
from benchmarks.rivals.turns import Row

COLUMNS = ("system", "asked", "p50 / p90 ms", "processor ms", "times ours", "complete", "shortest", "equal")
MASK_COLUMNS = ("items", "depth", "ours ms", "STATIC ms", "ours / STATIC", "equal")


def conditions(report: Report) -> str:
    """Under what the rows were measured, in a sentence."""
    told = report.conditions
    state = "other work ran on the machine" if report.was_busy else "idle machine"
    return f"{told['models']}, {told['threads']} thread(s), {told['machine']}, {told['date']}, {state}"


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows of one list length; times are also told as multiples of the processor time of our first form, where it takes part."""
    ours = next((row.processor_ms for row in rows if row.entrant.startswith(OURS)), None)
    return [
        (
            row.entrant,
            row.asked,
            f"{row.p50_ms:.1f} / {row.p90_ms:.1f}",
            f"{row.processor_ms:.1f}",
            "" if ours is None else f"{row.processor_ms / ours:.2f}",
            f"{row.complete}/{row.lists}",
            str(row.shortest),
            "" if row.equal is None else f"{row.equal}/{row.compared}",
        )
        for row in rows
    ]


def mask_cells(rows: Sequence[MaskRow]) -> list[tuple[str, ...]]:
    """The rows of the comparison with STATIC."""
    return [
        (
            f"{row.items:,}",
            str(row.depth),
            f"{row.ours_ms:.3f}",
            f"{row.static_ms:.3f}",
            f"{row.ours_ms / row.static_ms:.2f}",
            "yes" if row.equal else "no",
        )
        for row in rows
    ]


def markdown(report: Report | None, masks: Sequence[MaskRow], sentence: str = "") -> str:
    """All tables, and a sentence in place of the last one where that could not be made."""
    parts = []
    if report is not None:
        parts.append(f"{conditions(report)}.")
        for k in dict.fromkeys(row.k for row in report.rows):
            parts += [f"**K = {k}**", markdown_table(COLUMNS, cells([row for row in report.rows if row.k == k]))]
        parts += report.left_out
    if masks:
        parts.append(markdown_table(MASK_COLUMNS, mask_cells(masks)))
    if sentence:
        parts.append(sentence)
    return "\n\n".join(parts) + "\n"
