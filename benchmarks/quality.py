"""From data to a target and its value beside the baselines: `atspeed-bench quality`.

For each data set: identifiers from its training part, neighbour models, the baselines, and one trial, which chooses the number of epochs
and the weight of the blend. For each seed: a target by the data set's recipe, and an evaluation of its lists as they are served, alone and
blended. Every stage is one `atspeed` command that can be repeated by hand.

Invariants: a stage whose result is there is not run again, and a result's name bears the digest of its command and of all before it, so a
changed recipe is run anew from the stage that it changes. Whenever a run ends, the table is written from the results of today's recipes
that are there; of data sets that are not asked, it keeps what it has. Epochs and weights are chosen by models that have learnt the part
train alone, and the test part is asked once.
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
from benchmarks.pipeline import Pipeline, Stage
from benchmarks.quality_table import BLEND, REPORT, Compared, K, blended, read, write_table
from drafting.alignment.bases import PRESETS
from drafting.alignment.data.fit import FIT_TRAIN, FIT_VALID
from drafting.alignment.recipes import RECIPES
from drafting.alignment.settings import TargetSettings
from drafting.cache import cache_directory
from drafting.neighbours.model import SUFFIX
from server.demo.movielens import MovieLensError, download_wheel
from server.engine.processors import usable_processors
from verification.evaluation.baselines.closed_forms import CANDIDATES_AT
from verification.evaluation.settings import CLOSED_FORMS, EvaluationSettings

DATA_SETS = ("beauty", "games", "movielens")
NETWORKS = ("gru4rec", "sasrec")
# A network's figures differ from seed to seed as those of a target do.
NETWORK_SEEDS = 3
WEIGHTS = "0.25,0.5,1,2,4,8"
# Validation users that choose: with a quarter of them, weights and epochs are told apart by chance.
CHOOSING = "4000"
# What was best on validation users: see docs/alignment.md.
FILMS = ("--levels", "1", "--codes", "64", "--item-token")
SHOP = ("--levels", "1", "--balanced", "--item-token")
RECIPE = {"--base": "small", "--normalise": "children"}
SHOP_RECIPE = {"--base": "sparse", "--normalise": "children", "--validate-users": CHOOSING}
RAW_FILMS = "movielens/raw"
_WHEEL_FILMS = "recbole/dataset_example/ml-100k/"


@dataclass(frozen=True)
class DataSet:
    """Where the interactions of a data set are, how its catalog knows its items, and what its targets are trained with.

    Attributes:
        prepare: stages that make the directory; none where it is given.
        items: what `catalog build --items` takes; None for the directory's own list.
        identifiers: flags of `catalog build`.
        given: a catalog that is taken as it is; None for one that is built.
        recipe: flags of `train target`, before which the preset's recipe steps back.
        taught: targets learn what the neighbour model says, too.
        contents: digest of data and catalog, where the same paths may hold others tomorrow; empty where they are always the same.
    """

    name: str
    data: Path
    prepare: tuple[Stage, ...] = ()
    items: Path | None = None
    identifiers: tuple[str, ...] = ()
    given: Path | None = None
    recipe: dict[str, str] = field(default_factory=lambda: {"--base": "small"})
    taught: bool = True
    contents: str = ""


def data_set(name: str, shared: Path, work: Path) -> DataSet:
    """A data set by name: one of the paper's from `shared`, or MovieLens 100k from the package index.

    Raises:
        BenchmarkError: it is not there.
    """
    if name not in DATA_SETS:
        raise BenchmarkError(f"There is no data set {name!r}: choose {', '.join(DATA_SETS)}.")
    if name == "movielens":
        prepare = Stage.keyed(work, "movielens/data", ("prepare", str(work / RAW_FILMS)))
        return DataSet(name, prepare.result, (prepare,), identifiers=FILMS, recipe=RECIPE)
    return DataSet(name, shared / name, items=index_of(name, shared), identifiers=SHOP, recipe=SHOP_RECIPE, taught=False)


def index_of(name: str, shared: Path) -> Path:
    """The catalog of one of the paper's data sets.

    Raises:
        BenchmarkError: it is not there.
    """
    path = shared / name / f"{name}.index.json"
    if not path.is_file():
        raise BenchmarkError(f"There is no {path}: pass the directory that holds {name} with --shared, or leave it out of --only.")
    return path


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


@dataclass(frozen=True)
class Stages:
    """The stages of a data set, in a directory of all work."""

    source: DataSet
    work: Path

    def catalog(self, fit: str) -> Stage:
        """The catalog whose identifiers know a part."""
        given = () if self.source.items is None else ("--items", str(self.source.items))
        read = ("--data", str(self.source.data), *given)
        return self._stage(f"catalog-{fit}", "catalog", "build", *read, *self.source.identifiers, "--fit", fit, suffix=".jsonl")

    def neighbours(self, fit: str) -> Stage:
        """The neighbour model that learns a part."""
        return self._stage(f"neighbours-{fit}", "neighbours", "build", *self.inputs(fit), "--fit", fit, suffix=SUFFIX, also=CANDIDATES_AT)

    def shared(self) -> Iterator[Stage]:
        """The stages that all targets need, in order."""
        yield from self.source.prepare
        if self.source.given is None:
            yield from map(self.catalog, (FIT_TRAIN, FIT_VALID))
        yield from map(self.neighbours, (FIT_TRAIN, FIT_VALID))

    def baselines(self) -> Iterator[Stage]:
        """The baselines, which need no target: those in closed form at once, and each network."""
        yield self.closed_forms
        for network in NETWORKS:
            yield self._report(f"baselines-{network}", FIT_VALID, "--baselines", network, "--networks", str(NETWORK_SEEDS))

    @property
    def closed_forms(self) -> Stage:
        """The baselines that are computed at once."""
        return self._report("baselines-closed-forms", FIT_VALID, "--baselines", ",".join(CLOSED_FORMS))

    def trial(self) -> Iterator[Stage]:
        """A target that learns the part train, and its lists for validation users: they say for how many epochs and with which weight of
        the blend."""
        trial = self._train("trial", FIT_TRAIN, 0, {})
        yield trial
        yield self._judge("trial-report", trial, FIT_TRAIN, "--part", "valid", "--blend", WEIGHTS, "--users", CHOOSING)

    def seeds(self, count: int) -> list[Iterator[Stage]]:
        """The stages of each seed's target; none before the trial has ended."""
        return [] if finished(self.trial()) is None else [self.seed(seed) for seed in range(count)]

    def seed(self, seed: int) -> Iterator[Stage]:
        """A target that learns train and validation for as long as the trial has found best, and its evaluation."""
        trial, chosen = self.trial()
        epochs = {"--epochs": str(best_epoch(trial.result)), "--validate-users": "0"}
        target = self._train(f"target-{seed}", FIT_VALID, seed, epochs)
        yield target
        weight = f"{chosen_weight(chosen.result):g}"
        yield self._judge(f"report-{seed}", target, FIT_VALID, "--part", "test", "--blend", weight)

    def inputs(self, fit: str = FIT_VALID) -> tuple[str, ...]:
        """Data, and the catalog that knows a part, as flags."""
        return "--data", str(self.source.data), "--catalog", str(self.source.given or self.catalog(fit).result)

    def keyed_by(self, also: object = None) -> object:
        """What names the result of a stage beside its command: what that reads beside its arguments, and the contents of the data."""
        return (also, self.source.contents) if self.source.contents else also

    def _stage(self, name: str, *arguments: str, suffix: str = "", also: object = None) -> Stage:
        return Stage.keyed(self.work, f"{self.source.name}/{name}", arguments, suffix=suffix, also=self.keyed_by(also))

    def _report(self, name: str, fit: str, *asked: str) -> Stage:
        arguments = ("evaluate", *self.inputs(fit), "--k", str(K), *asked, "--overwrite")
        also = self.keyed_by(EvaluationSettings())
        return Stage.keyed(self.work, f"{self.source.name}/{name}", arguments, out="--report", inside=REPORT, also=also)

    def _train(self, name: str, fit: str, seed: int, more: dict[str, str]) -> Stage:
        taught = ("--neighbours", str(self.neighbours(fit).result)) if self.source.taught else ()
        recipe = self.source.recipe | more
        asked = (*(part for flag in recipe.items() for part in flag), *taught, "--fit", fit, "--seed", str(seed))
        also = TargetSettings(), RECIPES.get(recipe["--base"]), PRESETS.get(recipe["--base"])
        return self._stage(name, "train", "target", *self.inputs(fit), *asked, also=also)

    def _judge(self, name: str, model: Stage, fit: str, *asked: str) -> Stage:
        """Lists of a target, alone and blended."""
        models = ("--target", str(model.result), "--neighbours", str(self.neighbours(fit).result))
        return self._report(name, fit, *models, *asked, "--timed", "0", "--baselines", "none")


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
    stages = {name: Stages(data_set(name, shared, work), work) for name in names}
    pipeline = Pipeline(work)

    def follow(some: Iterable[Stage]) -> None:
        for stage in some:
            if not stage.result.exists() and time.monotonic() < ends:
                pipeline.run(stage.name, [stage], threads=max(1, usable_processors() // side_by_side))
            if not stage.result.exists():
                return

    if "movielens" in names:
        unpack_movielens(work / RAW_FILMS)
    for each in stages.values():
        follow(each.shared())
        if not each.neighbours(FIT_VALID).result.exists():
            break
        follow(each.trial())
        with ThreadPoolExecutor(side_by_side) as pool:
            for _ in pool.map(follow, [*each.seeds(seeds), *([stage] for stage in each.baselines())]):
                pass
    return write_table({name: compared(each, seeds) for name, each in stages.items()}, results, seeds)


def compared(stages: Stages, seeds: int) -> Compared:
    """The evaluations that are there of the recipes as they are."""
    ends = [last for chain in stages.seeds(seeds) if (last := finished(chain)) is not None]
    baselines = [stage.result for stage in stages.baselines() if stage.result.exists()]
    return Compared([read(stage.result) for stage in ends], [read(result) for result in baselines])


def finished(chain: Iterable[Stage]) -> Stage | None:
    """The last stage of a chain, or None if a result is missing on the way."""
    last = None
    for last in chain:
        if not last.result.exists():
            return None
    return last
