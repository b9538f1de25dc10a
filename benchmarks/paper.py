"""The paper's tables, from the interactions to the report: `atspeed-bench paper`.

Trains a target, lets it teach, trains a draft per objective and seed, and evaluates them all; every stage is one `atspeed` command, so what
is printed here can be repeated by hand. Invariants: a stage whose result is there is not run again, so an interrupted run goes on where it
was; what is timed runs alone on the machine, and only what is not timed runs side by side, one thread each, which on small models is faster
than one after the other with all threads. Nothing here knows any data set.
"""

import json
import os
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.markdown import markdown_table
from benchmarks.pipeline import Pipeline, Stage
from verification.evaluation.markdown import to_markdown
from verification.evaluation.plots import accepted_steps_plot
from verification.evaluation.report import Report

OBJECTIVES = ("sft", "wordkd", "tvdkd", "seqkd", "atspeed-s", "atspeed-r", "atspeed-c")
# Those of the paper's table whose speed is measured: the baseline, and the two that it proposes.
TIMED = ("sft", "atspeed-s", "atspeed-r")
# The paper's beams are as wide as its lists. Users are evenly spread over the test part: all of them would take hours, and
# `atspeed-bench lossless` counts the lists of every user.
ACCEPTANCE = ("--beam-width", "1", "--k", "10", "--modes", "strict,relaxed", "--users", "1000", "--timed", "0", "--baselines", "none")
SPEED = ("--beam-width", "1", "--k", "1,3,5,10,20", "--modes", "strict,relaxed,gumbel", "--users", "300", "--baselines", "none")
# The target alone, as it is served, beside the baselines.
QUALITY = ("--k", "5,10,20", "--timed", "0")
# Settings that were chosen on the validation part: see docs/alignment.md.
TARGET = ("--base", "paper", "--subsequences", "--epochs", "8", "--weight-decay", "0.1", "--left-out", "0.3")
DRAFT = ("--epochs", "5")
RECORDED_USERS = "500"
REPLAYED = "beam:40,beam:40+children,auto"


def join_reports(reports: Sequence[Report]) -> Report:
    """Join reports of different drafts on the same users; the rows of plain beam search come from the first report."""
    first, *others = reports
    rows = [*first.rows, *(row for report in others for row in report.rows if row.draft)]
    drafts = {name: draft for report in reports for name, draft in report.setting["drafts"].items()}
    return msgspec.structs.replace(first, rows=rows, setting=first.setting | {"drafts": drafts})


def stages(work: Path, data: Path, catalog: Path, objectives: Sequence[str], seeds: int) -> dict[str, list[Stage]]:
    """Every stage under the title of its step, in order; the stages of a step do not need each other."""
    target, teacher, recording = work / "target", work / "teacher", work / "recordings"
    inputs = ("--data", str(data), "--catalog", str(catalog))
    drafts = {(objective, seed): work / "drafts" / f"{objective}-{seed}" for objective in objectives for seed in range(seeds)}
    timed = [objective for objective in TIMED if objective in objectives]

    def train(objective: str, seed: int, out: Path) -> Stage:
        options = ("--teacher", str(teacher), "--objective", objective, "--seed", str(seed), "--out", str(out), *DRAFT)
        return Stage(f"draft-{out.name}", ("train", "draft", *options), out)

    def evaluate(name: str, chosen: Sequence[Path], *options: str) -> Stage:
        named = [part for draft in chosen for part in ("--draft", str(draft))]
        report = work / name
        arguments = ("evaluate", "--target", str(target), *inputs, *named, *options, "--report", str(report), "--overwrite")
        return Stage(name, arguments, report / "report.json")

    def replay(objective: str) -> list[Stage]:
        out = recording / f"{objective}.npz"
        options = ("--target", str(target), "--draft", str(drafts[objective, 0]), *inputs, "--users", RECORDED_USERS, "--out", str(out))
        rows = recording / f"{objective}.json"
        return [
            Stage(f"record-{objective}", ("replay", "record", *options), out, "benchmarks.cli"),
            Stage(f"replay-{objective}", ("replay", "run", str(out), "--plans", REPLAYED, "--json", str(rows)), rows, "benchmarks.cli"),
        ]

    recorded = [replay(objective) for objective in timed]
    return {
        "target": [Stage("target", ("train", "target", *inputs, "--out", str(target), *TARGET), target)],
        "quality": [evaluate("quality", [], *QUALITY)],
        "teacher": [Stage("teacher", ("train", "teacher", "--target", str(target), *inputs, "--out", str(teacher)), teacher)],
        "drafts": [train(objective, seed, out) for (objective, seed), out in drafts.items()],
        "acceptance": [
            evaluate(f"acceptance-{objective}", [drafts[objective, seed] for seed in range(seeds)], *ACCEPTANCE) for objective in objectives
        ],
        "recordings": [record for record, _ in recorded],
        "replays": [rows for _, rows in recorded],
        "speed": [evaluate("speed", [drafts[each, 0] for each in timed], *SPEED)],
    }


def write_report(results: Path, name: str, pipeline: Pipeline, command: str) -> Path:
    """Put what the stages found into `results/NAME.md`, with its plots beside it."""
    results.mkdir(parents=True, exist_ok=True)
    work, minutes = pipeline.work, sum(pipeline.seconds.values()) / 60
    files = [work / f"acceptance-{objective}" / "report.json" for objective in OBJECTIVES]
    acceptance = join_reports([msgspec.json.decode(file.read_bytes(), type=Report) for file in files if file.is_file()])
    steps = ", ".join(f"{title} {seconds / 60:.1f}" for title, seconds in pipeline.seconds.items())
    parts = [
        f"# The paper's tables on {name}",
        f"Made by `{command}` on {os.cpu_count()} cores, {date.today()}, in {minutes:.0f} minutes (by step: {steps}). Target: "
        f"`{' '.join(TARGET)}`; drafts: `{' '.join(DRAFT)}`, the preset `draft`. What follows from it: [alignment.md](../alignment.md).",
        "## The target beside the baselines",
        (work / "quality" / "report.md").read_text().strip(),
        "## Accepted steps of every draft, K = 10, N = 40",
        to_markdown(acceptance).strip(),
        _plot(accepted_steps_plot(acceptance, work / "acceptance.png"), results / f"{name}-objectives.png"),
        "## Every list length, with the clock of this machine",
        (work / "speed" / "report.md").read_text().strip(),
        _plot(work / "speed" / "accepted_steps.png", results / f"{name}-steps.png"),
        _plot(work / "speed" / "recall_speed.png", results / f"{name}-speed.png"),
        "## Modelled on other machines",
        "Strict, speed-up over plain beam search where a forward's fixed part costs as much as a / b tokens and a forward of the draft 1% "
        "of the target's (`atspeed-bench replay run`); in brackets the target's forwards per request.",
        _replays({path.stem: json.loads(path.read_bytes()) for path in sorted((work / "recordings").glob("*.json"))}),
    ]
    report = results / f"{name}.md"
    report.write_text("\n\n".join(parts) + "\n")
    return report


def _plot(source: Path, copy: Path) -> str:
    shutil.copy(source, copy)
    return f"![{copy.stem}]({copy.name})"


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


def run(data: Path, catalog: Path, work: Path, results: Path, seeds: int, objectives: Sequence[str]) -> Path:
    """Run what is missing of the pipeline, and write the report; return where it is.

    Raises:
        StageFailedError: a stage failed.
    """
    name, cores = data.resolve().name, os.cpu_count() or 1
    pipeline = Pipeline(work / name)
    for title, step in stages(pipeline.work, data, catalog, objectives, seeds).items():
        pipeline.run(title, step, side_by_side=min(cores, len(step)))
    return write_report(results, name, pipeline, f"atspeed-bench paper --data …/{name} --catalog …/{catalog.name}")
