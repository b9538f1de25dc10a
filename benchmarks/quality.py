"""From data to a target and what it is worth beside the baselines: `atspeed-bench quality`.

Of each data set and seed: identifiers from its training part, a target by its recipe, and an evaluation of its lists as they are served;
once per data set the baselines in the same evaluation. Every stage is one `atspeed` command that can be repeated by hand. Invariants: a
stage whose result is there is not run again; the table is written from what is there, whenever the run ends.
"""

import math
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import msgspec

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_table
from benchmarks.paper import Pipeline, Stage
from drafting.cache import cache_directory
from server.demo.movielens import MovieLensError, download_wheel
from verification.evaluation.report import BaselineRow, Quality, Report

K = 10
DATA_SETS = ("beauty", "games", "movielens")
BASELINES = "popular,co-occurrence,knn,ease,sasrec,gru4rec"
# The seed whose evaluation has the baselines, which have no seed or one of their own.
FIRST = 0
_FILMS = "recbole/dataset_example/ml-100k/"
HEADS = ("", f"Recall@{K}", "over seeds", f"NDCG@{K}", "over seeds", "of the best baseline's")


@dataclass(frozen=True)
class DataSet:
    """Where the interactions of a data set are, and how its catalog knows its items.

    Attributes:
        prepare: stages that make the directory; none where it is given.
        items: what `catalog build --items` takes; None for the directory's own list.
    """

    name: str
    data: Path
    prepare: tuple[Stage, ...] = ()
    items: Path | None = None


def data_set(name: str, shared: Path, work: Path) -> DataSet:
    """A data set by name: one of the paper's from `shared`, or MovieLens 100k from the package index.

    Raises:
        BenchmarkError: it is not there.
    """
    if name not in DATA_SETS:
        raise BenchmarkError(f"There is no data set {name!r}: choose {', '.join(DATA_SETS)}.")
    if name == "movielens":
        raw, data = work / name / "raw", work / name / "data"
        return DataSet(name, data, (Stage("movielens-prepare", ("prepare", str(raw), "--out", str(data)), data),))
    if not (shared / name).is_dir():
        raise BenchmarkError(f"There is no {shared / name}: pass the directory that holds {name} with --shared, or leave it out of --only.")
    return DataSet(name, shared / name, items=shared / name / f"{name}.index.json")


def unpack_movielens(folder: Path) -> None:
    """Put MovieLens 100k as RecBole's files into a folder, unless it is there.

    Raises:
        BenchmarkError: it cannot be had.
    """
    if folder.is_dir():
        return
    try:
        wheel = download_wheel(cache_directory())
    except MovieLensError as error:
        raise BenchmarkError(str(error)) from error
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name.startswith(_FILMS) and not name.endswith("/")}
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)


def stages(source: DataSet, work: Path, seeds: int) -> Iterator[Stage]:
    """The stages of a data set, in order."""
    yield from source.prepare
    folder = work / source.name
    catalog = folder / "catalog.jsonl"
    given = () if source.items is None else ("--items", str(source.items))
    yield Stage(f"{source.name}-catalog", ("catalog", "build", "--data", str(source.data), *given, "--out", str(catalog)), catalog)
    for seed in range(seeds):
        target, report = folder / f"target-{seed}", folder / f"report-{seed}"
        inputs = ("--data", str(source.data), "--catalog", str(catalog))
        learned = ("--base", "small", "--fit", "train+valid", "--seed", str(seed), "--out", str(target))
        yield Stage(f"{source.name}-target-{seed}", ("train", "target", *inputs, *learned), target)
        asked = ("--k", str(K), "--timed", "0", "--baselines", BASELINES if seed == FIRST else "none", "--report", str(report))
        yield Stage(
            f"{source.name}-report-{seed}", ("evaluate", "--target", str(target), *inputs, *asked, "--overwrite"), report / "report.json"
        )


def table(name: str, reports: Sequence[Report]) -> str:
    """One data set: the target over its seeds, and the baselines of the first."""
    baselines = [row for report in reports for row in report.baselines if row.k == K]
    targets = [row.quality for report in reports for row in report.rows if row.k == K]
    best = best_of(baselines)
    rows = [_cells(f"target, {len(targets)} seeds", targets, best)]
    rows += [_cells(f"{row.name} ({row.chosen})" if row.chosen else row.name, [row.quality], best) for row in baselines]
    return f"## {name}, {reports[0].users:,} users\n\n{markdown_table(HEADS, rows)}"


def best_of(baselines: Sequence[BaselineRow]) -> Quality | None:
    """The best Recall and the best NDCG of any baseline; None without baselines."""
    if not baselines:
        return None
    return Quality(max(row.quality.recall for row in baselines), max(row.quality.ndcg for row in baselines), math.nan)


def _cells(name: str, found: Sequence[Quality], best: Quality | None) -> list[str]:
    recalls, ndcgs = [quality.recall for quality in found], [quality.ndcg for quality in found]
    shares = "" if best is None else f"{mean(recalls) / max(best.recall, 1e-9):.2f}, {mean(ndcgs) / max(best.ndcg, 1e-9):.2f}"
    spread = [f"± {stdev(values):.4f}" if len(values) > 1 else "" for values in (recalls, ndcgs)]
    errors = [mean(quality.recall_error for quality in found), mean(quality.ndcg_error for quality in found)]
    return [name, f"{mean(recalls):.4f} ± {errors[0]:.4f}", spread[0], f"{mean(ndcgs):.4f} ± {errors[1]:.4f}", spread[1], shares]


def write_table(work: Path, names: Sequence[str], results: Path) -> Path:
    """Write `quality.md` of all evaluations that are there.

    Raises:
        BenchmarkError: there are none.
    """
    parts = []
    for name in names:
        files = sorted((work / name).glob("report-*/report.json"))
        if files:
            parts.append(table(name, [msgspec.json.decode(file.read_bytes(), type=Report) for file in files]))
    if not parts:
        raise BenchmarkError(f"No evaluation is done yet in {work}: give the same command again, with more --minutes.")
    results.mkdir(parents=True, exist_ok=True)
    path = results / "quality.md"
    head = (
        "# Targets beside the baselines\n\nMade by `make quality`. Test users, every item of the catalog a candidate, what a user has met "
        "left out, beams of 50; settings of baselines chosen on the validation part, and all learn from train and validation. Behind ± in "
        "a figure's own column is the standard error over users."
    )
    path.write_text("\n\n".join([head, *parts]) + "\n")
    return path


def run(names: Sequence[str], work: Path, shared: Path, results: Path, seeds: int, minutes: float | None) -> Path:
    """Run what is missing, and write the table; return where it is.

    Args:
        minutes: no stage begins after so many; None for no end.

    Raises:
        BenchmarkError: a data set is not there, a stage failed, or nothing is done yet.
    """
    ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
    sources = [data_set(name, shared, work) for name in names]
    pipeline = Pipeline(work)
    if "movielens" in names:
        unpack_movielens(work / "movielens" / "raw")
    for source in sources:
        for stage in stages(source, work, seeds):
            if not stage.result.exists() and time.monotonic() < ends:
                pipeline.run(stage.name, [stage])
            if not stage.result.exists():
                break
    return write_table(work, names, results)
