"""The table of `atspeed-bench quality`: targets over their seeds, alone and blended, beside the baselines.

Invariant: it is made of the evaluations that are there and says how many seeds they are; of data sets that are not asked this time, the
page keeps what it has.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import msgspec

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_table
from verification.evaluation.report import PLAIN, BaselineRow, ModeRow, Quality, Report
from verification.evaluation.settings import BASELINES as NAMES

K = 10
REPORT = "report.json"
# How the mode of a blended row begins; its weight follows.
BLEND = "blend "
# What a row's figures must be at least, as a share of the best baseline's.
ALONE = {"movielens": 1.0, "beauty": 0.95, "games": 0.95}
BLENDED = 1.08
HEADS = ("", f"Recall@{K}", "over seeds", f"NDCG@{K}", "over seeds", "of the best baseline's", "bar", "")
# How sentences of the page begin and end that list something of several data sets.
IN_SHORT = f"**In short**, as shares of the best baseline's Recall@{K} and NDCG@{K}: "
NOT_RUN, GOES_ON = "Not run yet: ", ". `make quality` goes on with them."
# What was measured on is written by hand.
MACHINE = "**Machine**"
# How the figures are made and read.
HOW = f"""* **What is asked**: the test users, with every item of the catalog a candidate and what a user has met left out; beams of 50.
* **What was learnt**: epochs, the weight of the blend and the settings of baselines are chosen on the validation part, by models of the
  part train. What is compared has learnt train and validation.
* **±** in a figure's own column is the standard error over users, in the column beside it the standard error over seeds.
* **Bars** are shares of the best baseline's figures: for the target alone 1.00 on MovieLens and 0.95 on Beauty and Games, blended
  {BLENDED:.2f}. A bar that is reached is open as long as not all baselines have been run.
* **What was tried**, and why a bar is missed: [alignment.md](../alignment.md#which-recipe-gives-the-best-lists)."""


@dataclass(frozen=True)
class Compared:
    """The evaluations of one data set: of targets, one a seed, and of baselines."""

    targets: Sequence[Report]
    baselines: Sequence[Report]

    @property
    def rows(self) -> list[BaselineRow]:
        """The rows of all baselines."""
        return [row for report in self.baselines for row in report.baselines]


def read(report: Path) -> Report:
    """The report of an evaluation."""
    return msgspec.json.decode(report.read_bytes(), type=Report)


def plain(report: Report) -> ModeRow:
    """The row of the target alone."""
    return next(row for row in report.rows if row.k == K and row.mode == PLAIN)


def blended(report: Report) -> ModeRow:
    """The row of blended lists."""
    return next(row for row in report.rows if row.k == K and row.mode.startswith(BLEND))


def table(compared: Compared, bars: tuple[float, float] | None = None) -> str:
    """One data set: the target over its seeds, alone and blended, and the baselines, networks over theirs; there is at least one of either.

    Args:
        bars: of the target alone and blended; None for a table without them.
    """
    reports, baselines = compared.targets, [row for row in compared.rows if row.k == K]
    alone, beside = bars or (None, None)
    best, whole = best_of(baselines), not _absent(baselines)
    rows = []
    if reports:
        seeds = f"{len(reports)} seed{'s' * (len(reports) > 1)}"
        weights = ", ".join(sorted({blended(report).mode.removeprefix(BLEND) for report in reports}))
        rows.append(_cells(f"target, {seeds}", [plain(report).quality for report in reports], best, alone, whole))
        rows.append(_cells(f"blended, weight {weights}, {seeds}", [blended(report).quality for report in reports], best, beside, whole))
    rows += [_cells(f"{row.name} ({row.chosen})" if row.chosen else row.name, row.seeds or [row.quality], best) for row in baselines]
    if bars is None:
        return markdown_table(HEADS[:-2], [cells[:-2] for cells in rows])
    return markdown_table(HEADS, rows)


def best_of(baselines: Sequence[BaselineRow]) -> Quality | None:
    """The best Recall and the best NDCG of any baseline; None without baselines."""
    if not baselines:
        return None
    return Quality(max(row.quality.recall for row in baselines), max(row.quality.ndcg for row in baselines), 0.0)


def _cells(name: str, found: Sequence[Quality], best: Quality | None, bar: float | None = None, whole: bool = False) -> list[str]:
    recalls, ndcgs = [quality.recall for quality in found], [quality.ndcg for quality in found]
    spread = [f"± {stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else "" for values in (recalls, ndcgs)]
    errors = [mean(quality.recall_error for quality in found), mean(quality.ndcg_error for quality in found)]
    cells = [name, f"{mean(recalls):.4f} ± {errors[0]:.4f}", spread[0], f"{mean(ndcgs):.4f} ± {errors[1]:.4f}", spread[1]]
    if best is None:
        return [*cells, "", "", ""]
    shares = _shares(found, best)
    told = f"{shares[0]:.2f}, {shares[1]:.2f}"
    if bar is None:
        return [*cells, told, "", ""]
    # Baselines that are not there can only lower a share.
    return [*cells, told, f"{bar:.2f}", "missed" if min(shares) < bar else "reached" if whole else "open"]


def _shares(found: Sequence[Quality], best: Quality) -> tuple[float, float]:
    """The mean Recall and the mean NDCG, each divided by the best baseline's."""
    recall, ndcg = mean(quality.recall for quality in found), mean(quality.ndcg for quality in found)
    return recall / max(best.recall, 1e-9), ndcg / max(best.ndcg, 1e-9)


def _in_short(name: str, compared: Compared) -> str:
    """The shares of a data set's targets; empty as long as there are no targets or no baselines."""
    best = best_of([row for row in compared.rows if row.k == K])
    if best is None or not compared.targets:
        return ""
    alone = _shares([plain(report).quality for report in compared.targets], best)
    beside = _shares([blended(report).quality for report in compared.targets], best)
    return f"{name} {alone[0]:.2f} and {alone[1]:.2f} alone, {beside[0]:.2f} and {beside[1]:.2f} blended"


def _absent(baselines: Sequence[BaselineRow]) -> list[str]:
    """Baselines that are not there, without which no row has met its bar."""
    return [title for title in NAMES.values() if title not in {row.name for row in baselines}]


@dataclass(frozen=True)
class _Kept:
    """What a page says of data sets that are not asked this time.

    Attributes:
        parts: their parts of the page, by name.
        shares, missing: what the sentences of the head list of them.
        machine: the paragraph about the machine that they were measured on, if there is one.
    """

    parts: dict[str, str]
    shares: list[str]
    missing: list[str]
    machine: list[str]

    @classmethod
    def of(cls, page: Path, asked: Collection[str]) -> "_Kept":
        """Read a page, if it is there."""
        head, *parts = re.split("^## ", page.read_text() if page.is_file() else "", flags=re.MULTILINE)
        by_name = {part.partition(",")[0]: f"## {part.strip()}" for part in parts}
        kept = {name: part for name, part in by_name.items() if name not in asked}
        paragraphs = [paragraph.strip() for paragraph in head.split("\n\n")]
        return cls(
            kept,
            [entry for entry in _listed(paragraphs, IN_SHORT, ".") if entry.partition(" ")[0] in kept],
            [entry for entry in _listed(paragraphs, NOT_RUN, GOES_ON) if entry.rpartition(" of ")[2] not in asked],
            [paragraph for paragraph in paragraphs if kept and paragraph.startswith(MACHINE)],
        )


def _listed(paragraphs: Sequence[str], start: str, end: str) -> list[str]:
    """What the sentence that begins and ends so lists."""
    lists = [paragraph.removeprefix(start).removesuffix(end) for paragraph in paragraphs if paragraph.startswith(start)]
    return [entry for each in lists for entry in each.split("; ")]


def write_table(found: Mapping[str, Compared], results: Path, seeds: int) -> Path:
    """Write `quality.md` of the evaluations of each data set that is asked, and what is missing of so many seeds.

    Raises:
        BenchmarkError: there are none.
    """
    parts: dict[str, str] = {}
    missing = []
    for name, compared in found.items():
        if evaluated := [*compared.targets, *compared.baselines]:
            parts[name] = f"## {name}, {evaluated[0].users:,} users\n\n{table(compared, (ALONE[name], BLENDED))}"
        if len(compared.targets) < seeds:
            missing.append(f"{seeds - len(compared.targets)} of {seeds} targets of {name}")
        if absent := _absent(compared.rows):
            missing.append(f"{', '.join(absent) if compared.rows else 'all baselines'} of {name}")
    if not parts:
        raise BenchmarkError("No evaluation is done yet: give the same command again, with more --minutes.")
    results.mkdir(parents=True, exist_ok=True)
    path = results / "quality.md"
    kept = _Kept.of(path, found)
    head = [
        "# Targets beside the baselines",
        "How good the lists of trained targets are, alone and blended with a neighbour model, beside popularity, co-occurrence, item-kNN, "
        "EASE, GRU4Rec and SASRec. For whoever chooses a recipe, or asks what a target is worth. Made by `make quality`.",
    ]
    if shares := sorted([*kept.shares, *filter(None, (_in_short(name, compared) for name, compared in found.items()))]):
        head.append(f"{IN_SHORT}{'; '.join(shares)}.")
    head.append(HOW)
    if missing := [*kept.missing, *missing]:
        head.append(f"{NOT_RUN}{'; '.join(missing)}{GOES_ON}")
    tables = [part for _, part in sorted({**kept.parts, **parts}.items())]
    path.write_text("\n\n".join([*head, *kept.machine, *tables]) + "\n")
    return path
