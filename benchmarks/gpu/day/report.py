"""The report of a day: Markdown, made anew from the results whenever a part ends.

Invariant: every part is in it, with its table or with the reason why there is none.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from typing import Any

from benchmarks.gpu.day.parts import PARTS, Part
from benchmarks.gpu.day.results import FINISHED, Figures, Results
from benchmarks.gpu.promises import judge_promises
from benchmarks.gpu.timing import COLUMNS, Timing, timing_cells
from benchmarks.markdown import markdown_table

TIMING_FIELDS = {field.name for field in fields(Timing)}


def markdown(results: Results, rehearse: bool) -> str:
    """The whole report."""
    size = "Rehearsed with small sizes: no figure here says anything of a device. " if rehearse else ""
    lines = [f"{size}`make gpu-day`, {date.today()}.", ""]
    for part in PARTS.values():
        lines += [f"## {part.title}", "", *_part(part, results), ""]
    promised = judge_promises([timing for part in PARTS for timing in _timings(results, part)])
    if promised and not rehearse:
        lines += ["## Promised", "", *(f"* {sentence}" for sentence in promised), ""]
    return "\n".join(lines)


def _part(part: Part, results: Results) -> list[str]:
    rows = [row for measured in results.measured(part.name) for row in measured.rows]
    timed, others = _timings(results, part.name), [row for row in rows if not row.keys() >= TIMING_FIELDS]
    sentences = [f"{next(iter(row))}: {next(iter(row.values()))}" for row in others if len(row) == 1]
    table = [row for row in others if len(row) > 1]
    lines = [part.about]
    if timed:
        lines += ["", markdown_table(COLUMNS, map(timing_cells, timed))]
    if table:
        lines += ["", _table(table)]
    ended = results.ended(part.name)
    if ended != FINISHED:
        sentences.append(f"Not measured to the end. {ended or 'It has not begun, or was killed.'}")
    if sentences:
        lines += ["", *(f"* {sentence}" for sentence in sentences)]
    return lines


def _timings(results: Results, part: str) -> list[Timing]:
    rows = (row for measured in results.measured(part) for row in measured.rows)
    return [Timing(**row) for row in rows if row.keys() == TIMING_FIELDS]


def _table(rows: Sequence[Figures]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return markdown_table(columns, ([_cell(row.get(column)) for column in columns] for row in rows))


def _cell(figure: Any) -> str:
    if figure is None:
        return ""
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)
