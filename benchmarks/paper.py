"""The paper's tables, from the interactions to the report: `atspeed-bench paper`.

Trains a target as `benchmarks.quality` does, but on the identifiers that the data set comes with; makes teacher data; trains a draft per
objective and seed; and evaluates them all. Every stage is one `atspeed` command, so what is printed here can be repeated by hand.

The data sets' own identifiers are taken, although others give better lists, because the paper's claim is about identifiers of several
codes, of which a draft guesses all but the last. Of a cluster and an item's own token, a draft could guess only the cluster.

Invariants: a stage whose result is there is not run again, so an interrupted run continues, and a changed recipe is run anew from the stage
that it changes. What is timed runs alone on the machine. Only what is not timed runs side by side, one thread each, which on small models
is faster than one after the other with all threads.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.markdown import markdown_table
from benchmarks.pipeline import Pipeline, Stage
from benchmarks.quality import DataSet, Stages, index_of
from benchmarks.quality_table import REPORT, Compared, read, table
from drafting.alignment.bases import PRESETS
from drafting.alignment.data.hashes import file_hash
from drafting.alignment.data.loading import data_hashes
from drafting.alignment.settings import DraftSettings, TeacherSettings
from server.engine.processors import usable_processors
from verification.evaluation.markdown import to_markdown
from verification.evaluation.plots import accepted_steps_plot
from verification.evaluation.report import Report
from verification.evaluation.settings import EvaluationSettings

# Those of the paper's table whose speed is measured: the baseline, and the two that it proposes.
TIMED = ("sft", "atspeed-s", "atspeed-r")
# The paper's beams are as wide as its lists. Users are evenly spread over the test part: all of them would take hours, and
# `atspeed-bench lossless` counts the lists of every user.
ACCEPTANCE = ("--beam-width", "1", "--k", "10", "--modes", "strict,relaxed", "--users", "1000", "--timed", "0", "--baselines", "none")
SPEED = ("--beam-width", "1", "--k", "1,3,5,10,20", "--modes", "strict,relaxed,gumbel", "--users", "300", "--baselines", "none")
# What the quality recipe has for sparse data, with a model that is worth drafting for. Teacher data need scores over the vocabulary.
RECIPE = {"--base": "base", "--batch-size": "128", "--learning-rate": "2e-3", "--epochs": "12", "--precision": "bfloat16"}
DRAFT = ("--epochs", "5")
RECORDED_USERS = 500
REPLAYED = "beam:40,beam:40+children,auto"


def join_reports(reports: Sequence[Report]) -> Report:
    """Join reports of different drafts on the same users; the rows of plain beam search come from the first report."""
    first, *others = reports
    rows = [*first.rows, *(row for report in others for row in report.rows if row.draft)]
    drafts = {name: draft for report in reports for name, draft in report.setting["drafts"].items()}
    return msgspec.structs.replace(first, rows=rows, setting=first.setting | {"drafts": drafts})


def papers(names: Sequence[str], shared: Path) -> list[DataSet]:
    """The paper's data sets, with the identifiers that they come with.

    Raises:
        BenchmarkError: one is not there.
    """
    return [given(shared / name, index_of(name, shared)) for name in names]


def given(data: Path, catalog: Path) -> DataSet:
    """A directory of interactions with a catalog of its own, named after the directory."""
    return DataSet(data.resolve().name, data, given=catalog, recipe=RECIPE)


def own(data: Path, catalog: Path) -> DataSet:
    """Interactions and a catalog of the user's own, which may be others the next time.

    Raises:
        InteractionError: the directory holds no interactions.
    """
    contents = hashlib.sha256("\n".join([*data_hashes(data).values(), file_hash(catalog)]).encode()).hexdigest()
    return replace(given(data, catalog), contents=contents)


@dataclass(frozen=True)
class Drafted:
    """The stages that follow a target: what it teaches, the drafts that learn it, and what they save.

    Attributes:
        source: stages of the target's data set.
        target: the stage that has trained it.
        seeds: drafts of each objective.
        recorded: test users whose prefixes are recorded.
    """

    source: Stages
    target: Stage
    objectives: Sequence[str]
    seeds: int
    recorded: int = RECORDED_USERS

    @cached_property
    def teacher(self) -> Stage:
        return self._stage(
            "teacher", "train", "teacher", "--target", str(self.target.result), *self.source.inputs(), also=TeacherSettings()
        )

    def draft(self, objective: str, seed: int) -> Stage:
        """A draft that has learnt an objective."""
        named = f"{objective}-{seed}"
        asked = ("--teacher", str(self.teacher.result), "--objective", objective, "--seed", str(seed), *DRAFT)
        return self._stage(named, "train", "draft", *asked, inner=named, also=(DraftSettings(), PRESETS["draft"]))

    def acceptance(self, objective: str) -> Stage:
        """Measures how many steps the drafts of an objective save."""
        return self._report(f"acceptance-{objective}", [self.draft(objective, seed) for seed in range(self.seeds)], *ACCEPTANCE)

    @cached_property
    def speed(self) -> Stage:
        """The times of one draft of each timed objective."""
        return self._report("speed", [self.draft(objective, 0) for objective in self.timed], *SPEED)

    @property
    def timed(self) -> list[str]:
        """The objectives whose drafts are timed."""
        return [objective for objective in TIMED if objective in self.objectives]

    def recording(self, objective: str) -> Stage:
        """Records the prefixes that a draft proposes and the target keeps, for some users."""
        models = ("--target", str(self.target.result), "--draft", str(self.draft(objective, 0).result))
        asked = ("replay", "record", *models, *self.source.inputs(), "--users", str(self.recorded))
        return self._stage(f"recording-{objective}", *asked, suffix=".npz", command="benchmarks.cli")

    def replay(self, objective: str) -> Stage:
        """The recording as other machines would have run it."""
        asked = ("replay", "run", str(self.recording(objective).result), "--plans", REPLAYED)
        return self._stage(f"replay-{objective}", *asked, suffix=".json", out="--json", command="benchmarks.cli")

    def steps(self) -> dict[str, list[Stage]]:
        """Every stage under the title of its step, in order; the stages of a step do not need each other. No step is without stages."""
        steps = {
            "teacher": [self.teacher],
            "drafts": [self.draft(objective, seed) for objective in self.objectives for seed in range(self.seeds)],
            "acceptance": [self.acceptance(objective) for objective in self.objectives],
            "recordings": [self.recording(objective) for objective in self.timed],
            "replays": [self.replay(objective) for objective in self.timed],
            "speed": [self.speed] if self.timed else [],
        }
        return {title: step for title, step in steps.items() if step}

    def _stage(self, name: str, *arguments: str, also: object = None, **options: Any) -> Stage:
        return Stage.keyed(self.source.work, f"{self.source.source.name}/{name}", arguments, also=self.source.keyed_by(also), **options)

    def _report(self, name: str, drafts: Sequence[Stage], *options: str) -> Stage:
        named = [part for draft in drafts for part in ("--draft", str(draft.result))]
        asked = ("evaluate", "--target", str(self.target.result), *self.source.inputs(), *named, *options, "--overwrite")
        return self._stage(name, *asked, out="--report", inside=REPORT, also=EvaluationSettings())


def write_report(results: Path, drafted: Drafted, compared: Compared, seconds: Mapping[str, float], command: str) -> Path:
    """Put what the stages found into `results/NAME.md`, with its plots beside it."""
    results.mkdir(parents=True, exist_ok=True)
    name, minutes = drafted.source.source.name, sum(seconds.values()) / 60
    acceptance = join_reports([read(drafted.acceptance(objective).result) for objective in drafted.objectives])
    steps = ", ".join(f"{title} {each / 60:.1f}" for title, each in seconds.items())
    recipe, draft = (" ".join(filter(None, flags)) for flags in (sum(drafted.source.source.recipe.items(), ()), DRAFT))
    taught = ", soft labels of the neighbour model (`--neighbours`)" if drafted.source.source.taught else ""
    parts = [
        f"# The paper's tables on {name}",
        "The tables of the AtSpeed paper, made again on this data set: the target beside baselines without a generative model, the "
        "accepted steps of drafts by training objective, and speed-ups here and on modelled machines. For whoever chooses a draft's "
        "objective or compares with the paper. What follows from it: [alignment.md](../alignment.md).",
        f"Made by `{command}` on {usable_processors()} cores, {date.today()}, in {minutes:.0f} minutes (by step: {steps}). "
        f"Target: `{recipe}`{taught} and the [recipe of its base](../alignment.md#recipes), on the data set's own identifiers; "
        f"drafts: `{draft}`, the preset `draft`. "
        "Every list leaves out what its user has met.",
        "## The target beside the baselines",
        f"{compared.targets[0].users:,} test users. The target and the baselines have learnt train and validation; the validation part "
        "chose epochs, weight and settings. The figure after ± is the standard error over users. SASRec and GRU4Rec are not among these "
        "baselines: `atspeed evaluate --baselines sasrec,gru4rec` makes them, and [quality.md](quality.md) has those of Beauty and Games.",
        table(compared),
        "## Accepted steps of every draft, K = 10, N = 40",
        to_markdown(acceptance).strip(),
        _picture(accepted_steps_plot(acceptance, results / f"{name}-objectives.png")),
        *_timed_parts(results, drafted),
    ]
    report = results / f"{name}.md"
    report.write_text("\n\n".join(parts) + "\n")
    return report


def _timed_parts(results: Path, drafted: Drafted) -> list[str]:
    """What was timed, here and on other machines, with the plots beside the report; nothing where no objective is timed."""
    if not drafted.timed:
        return []
    name, speed = drafted.source.source.name, drafted.speed.result.parent
    return [
        "## Every list length, with the clock of this machine",
        (speed / "report.md").read_text().strip(),
        _plot(speed / "accepted_steps.png", results / f"{name}-steps.png"),
        _plot(speed / "recall_speed.png", results / f"{name}-speed.png"),
        "## Modelled on other machines",
        "Strict, speed-up over plain beam search where a forward's fixed part costs as much as a / b tokens and a forward of the draft 1% "
        "of the target's (`atspeed-bench replay run`); in brackets the target's forwards per request.",
        _replays({objective: json.loads(drafted.replay(objective).result.read_bytes()) for objective in drafted.timed}),
    ]


def _plot(source: Path, copy: Path) -> str:
    shutil.copy(source, copy)
    return _picture(copy)


def _picture(path: Path) -> str:
    return f"![{path.stem}]({path.name})"


def _replays(by_draft: dict[str, list[dict[str, Any]]]) -> str:
    ks = sorted({row["k"] for rows in by_draft.values() for row in rows})
    cells = {
        (row["balance"], draft, row["plan"], row["k"]): f"{row['speedup']:.2f} ({row['target_forwards']:.2f})"
        for draft, rows in by_draft.items()
        for row in rows
    }
    settings = sorted({key[:3] for key in cells})
    rows = ((f"{balance:g}", draft, plan, *(cells[balance, draft, plan, k] for k in ks)) for balance, draft, plan in settings)
    return markdown_table(("a / b", "draft", "plan", *(f"K = {k}" for k in ks)), rows)


def run(sources: Sequence[DataSet], work: Path, results: Path, seeds: int, objectives: Sequence[str], command: str) -> list[Path]:
    """Run what is missing of the pipeline, data set by data set, and write the reports; return where they are.

    Raises:
        StageFailedError: a stage failed.
    """
    return [_run(Stages(source, work), Pipeline(work / source.name), results, seeds, objectives, command) for source in sources]


def _run(source: Stages, pipeline: Pipeline, results: Path, seeds: int, objectives: Sequence[str], command: str) -> Path:
    *_, baselines = before = list(_each(pipeline, [*source.shared(), source.closed_forms]))
    *_, target, evaluated = learnt = list(_each(pipeline, chain(source.trial(), source.seed(0))))
    # Data of a user's own may have fewer.
    drafted = Drafted(source, target, objectives, seeds, min(RECORDED_USERS, read(evaluated.result).users))
    for title, step in (steps := drafted.steps()).items():
        pipeline.run(title, step, side_by_side=min(usable_processors(), len(step)))
    compared = Compared([read(evaluated.result)], [read(baselines.result)])
    # An earlier run may have had steps that this one has not.
    titles = {*(stage.name for stage in (*before, *learnt)), *steps}
    seconds = {title: each for title, each in pipeline.seconds.items() if title in titles}
    return write_report(results, drafted, compared, seconds, command)


def _each(pipeline: Pipeline, stages: Iterable[Stage]) -> Iterator[Stage]:
    """Run stages one after the other, each with all cores, and yield them; a stage may read what the one before it has found."""
    for stage in stages:
        pipeline.run(stage.name, [stage])
        yield stage
