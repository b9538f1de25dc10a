"""Means over seeds: drafts that were trained alike, but for their seeds.

Invariant: by their `training.json`, not by their names, drafts are joined that have learnt the same objective with the same settings.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import msgspec

from drafting.alignment.runs import training_record
from verification.evaluation.report import ModeRow, Report


class SeedRow(msgspec.Struct, frozen=True):
    """An objective and mode at one list length, over drafts with different seeds.

    Attributes:
        drafts: number of drafts.
        accepted_steps, deviation: mean and standard deviation of AS@K; the deviation is 0 for a single draft.
        recall, ndcg: means over the drafts.
        speedup: mean speed-up; None if no users were timed.
    """

    objective: str
    mode: str
    k: int
    drafts: int
    accepted_steps: float
    deviation: float
    recall: float
    ndcg: float
    speedup: float | None


def describe_drafts(drafts: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Objective and seed of each draft from its `training.json`; without an objective there, the name of the draft. Behind an objective of
    which some were trained otherwise than others stands the name of the first that was trained alike.
    """
    records = {name: training_record(path) for name, path in drafts.items()}
    objectives = {name: record.get("settings", {}).get("objective", name) for name, record in records.items()}
    first: dict[bytes, str] = {}
    alike = {name: first.setdefault(_recipe(record), name) for name, record in records.items()}
    described = {}
    for name, record in records.items():
        objective = objectives[name]
        recipes = {alike[other] for other in records if objectives[other] == objective}
        told = f"{objective} ({alike[name]})" if len(recipes) > 1 else objective
        described[name] = {"objective": told, "seed": record.get("settings", {}).get("seed")}
    return described


def _recipe(record: dict[str, Any]) -> bytes:
    """What a draft was made of, but its seed."""
    settings = record.get("settings", {}) | {"seed": None}
    return msgspec.json.encode([settings, record.get("base"), record.get("teacher")], order="sorted")


def over_seeds(report: Report) -> list[SeedRow]:
    """The rows per objective, mode and list length, in the order of the report."""
    objective_of = {name: draft["objective"] for name, draft in report.setting["drafts"].items()}
    groups: dict[tuple[str, str, int], list[ModeRow]] = {}
    for row in report.rows:
        if row.draft:
            groups.setdefault((objective_of[row.draft], row.mode, row.k), []).append(row)
    return [_joined(*key, rows) for key, rows in groups.items()]


def _joined(objective: str, mode: str, k: int, rows: list[ModeRow]) -> SeedRow:
    steps = [row.accepted_steps.mean for row in rows]
    speedups = [row.timing.speedup for row in rows if row.timing]
    return SeedRow(
        objective=objective,
        mode=mode,
        k=k,
        drafts=len(rows),
        accepted_steps=mean(steps),
        deviation=stdev(steps) if len(steps) > 1 else 0.0,
        recall=mean(row.quality.recall for row in rows),
        ndcg=mean(row.quality.ndcg for row in rows),
        speedup=mean(speedups) if speedups else None,
    )
