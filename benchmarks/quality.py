"""From data to a target and what it is worth beside the baselines: `atspeed-bench quality`.

Of each data set: identifiers from its training part, neighbour models, and the baselines; of each of its seeds a target by the data set's
recipe, and an evaluation of its lists as they are served, alone and blended. Every stage is one `atspeed` command that can be repeated by
hand. Invariants: a stage whose result is there is not run again; the table is written from what is there, whenever the run ends; epochs and
weights are chosen by models that have learnt the part train alone, and the test part is asked once.
"""

import math
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.endings import BenchmarkError
from benchmarks.paper import Pipeline, Stage
from benchmarks.quality_table import BASELINES, BLEND, REPORT, K, blended, read, write_table
from drafting.alignment.data.fit import FIT_TRAIN, FIT_VALID
from drafting.cache import cache_directory
from drafting.neighbours.model import SUFFIX
from server.demo.movielens import MovieLensError, download_wheel
from server.engine.processors import usable_processors
from verification.evaluation.settings import CLOSED_FORMS

DATA_SETS = ("beauty", "games", "movielens")
NETWORKS = ("gru4rec", "sasrec")
# What was best on validation users: see docs/alignment.md.
FILMS = ("--levels", "2", "--codes", "128", "--unique")
SHOP = ("--levels", "1", "--item-token")
SHOP_RECIPE = {"--base": "small", "--epochs": "8", "--learning-rate": "3e-3", "--batch-size": "128", "--normalise": "children"}
WEIGHTS = "0.25,0.5,1,2"
# Validation users that choose among them.
CHOOSING = "1000"
_WHEEL_FILMS = "recbole/dataset_example/ml-100k/"


@dataclass(frozen=True)
class DataSet:
    """Where the interactions of a data set are, how its catalog knows its items, and what its targets are trained with.

    Attributes:
        prepare: stages that make the directory; none where it is given.
        items: what `catalog build --items` takes; None for the directory's own list.
        identifiers: flags of `catalog build`.
        recipe: flags of `train target`, before which the preset's recipe steps back.
        taught: whether targets learn the candidates of the neighbour model, too.
    """

    name: str
    data: Path
    prepare: tuple[Stage, ...] = ()
    items: Path | None = None
    identifiers: tuple[str, ...] = ()
    recipe: dict[str, str] = field(default_factory=lambda: {"--base": "small"})
    taught: bool = False


def data_set(name: str, shared: Path, work: Path) -> DataSet:
    """A data set by name: one of the paper's from `shared`, or MovieLens 100k from the package index.

    Raises:
        BenchmarkError: it is not there.
    """
    if name not in DATA_SETS:
        raise BenchmarkError(f"There is no data set {name!r}: choose {', '.join(DATA_SETS)}.")
    if name == "movielens":
        raw, data = work / name / "raw", work / name / "data"
        prepare = (Stage("movielens-prepare", ("prepare", str(raw), "--out", str(data)), data),)
        return DataSet(name, data, prepare, identifiers=FILMS)
    if not (shared / name).is_dir():
        raise BenchmarkError(f"There is no {shared / name}: pass the directory that holds {name} with --shared, or leave it out of --only.")
    listed = shared / name / f"{name}.index.json"
    return DataSet(name, shared / name, items=listed, identifiers=SHOP, recipe=SHOP_RECIPE, taught=True)


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
        files = {name: archive.read(name) for name in archive.namelist() if name.startswith(_WHEEL_FILMS) and not name.endswith("/")}
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)


def shared_stages(source: DataSet, work: Path) -> Iterator[Stage]:
    """What all targets of a data set need, in order."""
    yield from source.prepare
    paths = Paths(source, work)
    given = () if source.items is None else ("--items", str(source.items))
    built = ("catalog", "build", "--data", str(source.data), *given, *source.identifiers, "--out", str(paths.catalog))
    yield Stage(f"{source.name}-catalog", built, paths.catalog)
    for fit in (FIT_TRAIN, FIT_VALID):
        out = paths.neighbours(fit)
        yield Stage(f"{source.name}-neighbours-{fit}", ("neighbours", "build", *paths.inputs, "--fit", fit, "--out", str(out)), out)


def baseline_stages(source: DataSet, work: Path) -> Iterator[Stage]:
    """The baselines of a data set, which need no target: those in closed form at once, and each network."""
    paths = Paths(source, work)
    for title, names in {"closed-forms": ",".join(CLOSED_FORMS), **{network: network for network in NETWORKS}}.items():
        report = paths.folder / f"{BASELINES}-{title}"
        asked = ("--baselines", names, "--k", str(K), "--report", str(report), "--overwrite")
        yield Stage(f"{source.name}-{report.name}", ("evaluate", *paths.inputs, *asked), report / REPORT)


def seed_stages(source: DataSet, work: Path, seed: int) -> Iterator[Stage]:
    """A target of a data set, in order: a trial that learns the part train, which says for how many epochs and with which weight of the
    blend, then the target that learns train and validation, and its evaluation. A stage reads what the one before it has found.
    """
    paths = Paths(source, work)
    trial, target = paths.folder / f"trial-{seed}", paths.folder / f"target-{seed}"
    chosen, report = paths.folder / f"trial-report-{seed}" / REPORT, paths.folder / f"report-{seed}" / REPORT

    def train(out: Path, fit: str, more: dict[str, str]) -> Stage:
        taught = ("--neighbours", str(paths.neighbours(fit))) if source.taught else ()
        recipe = [part for flag in (source.recipe | more).items() for part in flag]
        asked = (*recipe, *taught, "--fit", fit, "--seed", str(seed), "--out", str(out))
        return Stage(f"{source.name}-{out.name}", ("train", "target", *paths.inputs, *asked), out)

    def evaluate(model: Path, fit: str, part: str, weights: str, result: Path, *users: str) -> Stage:
        blended = ("--neighbours", str(paths.neighbours(fit)), "--blend", weights, "--part", part)
        asked = ("--k", str(K), *users, "--timed", "0", "--baselines", "none", "--report", str(result.parent), "--overwrite")
        arguments = ("evaluate", "--target", str(model), *paths.inputs, *blended, *asked)
        return Stage(f"{source.name}-{result.parent.name}", arguments, result)

    yield train(trial, FIT_TRAIN, {})
    yield evaluate(trial, FIT_TRAIN, "valid", WEIGHTS, chosen, "--users", CHOOSING)
    yield train(target, FIT_VALID, {"--epochs": str(best_epoch(trial)), "--validate-users": "0"})
    yield evaluate(target, FIT_VALID, "test", f"{chosen_weight(chosen):g}", report)


@dataclass(frozen=True)
class Paths:
    """Where the stages of a data set leave what others read."""

    source: DataSet
    work: Path

    @property
    def folder(self) -> Path:
        return self.work / self.source.name

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.jsonl"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Data and catalog as flags."""
        return "--data", str(self.source.data), "--catalog", str(self.catalog)

    def neighbours(self, fit: str) -> Path:
        """The neighbour model that has learnt a part."""
        return self.folder / f"{fit}{SUFFIX}"


def best_epoch(trial: Path) -> int:
    """How many epochs were best on the validation users of a trial."""
    record = msgspec.json.decode((trial / "training.json").read_bytes())
    return int(record["metrics"]["best_epoch"] or record["settings"]["epochs"])


def chosen_weight(report: Path) -> float:
    """The weight of the blend that the validation users of a trial chose."""
    return float(blended(read(report)).mode.removeprefix(BLEND))


def run(names: Sequence[str], work: Path, shared: Path, results: Path, seeds: int, minutes: float | None, side_by_side: int = 1) -> Path:
    """Run what is missing, and write the table; return where it is.

    Args:
        minutes: no stage begins after so many; None for no end.
        side_by_side: stages at a time, of different targets or of baselines.

    Raises:
        BenchmarkError: a data set is not there, a stage failed, or nothing is done yet.
    """
    ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
    sources = [data_set(name, shared, work) for name in names]
    pipeline = Pipeline(work)

    def follow(some: Iterable[Stage]) -> None:
        for stage in some:
            if not stage.result.exists() and time.monotonic() < ends:
                pipeline.run(stage.name, [stage], threads=max(1, usable_processors() // side_by_side))
            if not stage.result.exists():
                return

    if "movielens" in names:
        unpack_movielens(work / "movielens" / "raw")
    for source in sources:
        follow(shared_stages(source, work))
        if not Paths(source, work).neighbours(FIT_VALID).exists():
            break
        chains = [*([stage] for stage in baseline_stages(source, work)), *(seed_stages(source, work, seed) for seed in range(seeds))]
        with ThreadPoolExecutor(side_by_side) as pool:
            for _ in pool.map(follow, chains):
                pass
    return write_table(work, names, results, seeds)
