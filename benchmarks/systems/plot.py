"""The picture of a benchmark: time by list length, one line per system and plan.

Invariant: nothing is drawn that is not in the rows.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import panels
from benchmarks.systems.interleaved import Row
from benchmarks.systems.question import PLAIN

# Each system has one of its own, as there are more lines than colours.
LINE_STYLES = ("-", "--", ":", "-.", "-")
MARKERS = ("o", "s", "D", "^", "v")


def label(row: Row) -> str:
    """The name of a row: system, plan if it drafts, and whether the user's last prompt was cached."""
    name = row.system if row.plan == PLAIN else f"{row.system}, {row.plan}"
    return f"{name}, cached" if row.cached else name


def save_plot(rows: Sequence[Row], path: Path) -> None:
    """Write one panel per concurrency, p50 over k."""
    concurrencies = sorted({row.concurrency for row in rows})
    names = list(dict.fromkeys(map(label, rows)))
    systems = list(dict.fromkeys(row.system for row in rows))
    # The legend takes a part of the width.
    figure, every = panels(len(concurrencies), 5.5 + 3 / len(concurrencies), squeeze=False)
    for axes, concurrency in zip(every[0], concurrencies, strict=True):
        for number, name in enumerate(names):
            line = [row for row in rows if label(row) == name and row.concurrency == concurrency]
            system = systems.index(line[0].system) % len(LINE_STYLES) if line else 0
            drawn = {"linestyle": LINE_STYLES[system], "marker": MARKERS[system], "color": f"C{number % 10}"}
            axes.plot([row.k for row in line], [row.p50_ms for row in line], label=name, **drawn)
        axes.set_title("one request at a time" if concurrency == 1 else f"{concurrency} requests at once")
        axes.set_xlabel("k")
        axes.set_xticks(sorted({row.k for row in rows}))
        axes.set_ylabel("p50, ms per request")
        # Systems differ by many times, and plans by a tenth.
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
    figure.legend(*every[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(path)
