"""The evaluation: every draft, verification mode and list length on the same users, compared with plain beam search.

Invariant: plain beam search runs once per list length on the same checkpoint and host, and all other lists are compared with its lists.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from drafting.alignment.data.hashes import model_hash
from drafting.alignment.data.interactions import Split
from drafting.alignment.data.reach import check_kinds
from drafting.array_types import DoubleArray
from drafting.beam.rule import MAX_BEAM_WIDTH, STRICT, SearchRule, Verification
from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from drafting.model_files import ModelFiles
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.plans.plan import Plan
from drafting.prompts.user_state import UserState
from verification.evaluation.baselines.baselines import baseline_rows
from verification.evaluation.baselines.ranking import CHOSEN_AT, quality_of
from verification.evaluation.baselines.task import BaselineTask
from verification.evaluation.blending import blended_mode
from verification.evaluation.exhaustive import rank_catalog
from verification.evaluation.report import PLAIN, BaselineRow, Exhaustive, ModeRow, Report, Spread, Timing
from verification.evaluation.searching import NO_PLAN, Beam, Found, GenerateError, GenerateLists, Mode, search_all, time_modes
from verification.evaluation.seeds import describe_drafts
from verification.evaluation.settings import EvaluationSettings
from verification.evaluation.users import HeldOut, held_out
from verification.lengths import beam_width_for
from verification.recommender import Recommender


def evaluate(
    target: Path,
    drafts: Mapping[str, Path],
    catalog: Catalog,
    split: Split,
    settings: EvaluationSettings,
    base: Path | None = None,
    neighbours: CatalogNeighbours | None = None,
    folder: Path | None = None,
    draft_base: Path | None = None,
) -> Report:
    """Evaluate a target and each of the drafts, which are given by name.

    Args:
        base, draft_base: base models of a target and of drafts that are adapters; by default those that their configurations name.
        neighbours: for the rows of blended lists, with the best of `settings.blend`.
        folder: where neural baselines are kept while they learn, so that an interrupted evaluation goes on there.

    Raises:
        SetupError: the inputs cannot be used.
    """
    users = held_out(split, settings.part, settings.most_users)
    evaluation = _Evaluation(ModelFiles.find(target, base), catalog, users, settings, split, neighbours, folder)
    found = {name: ModelFiles.find(path, draft_base, "--draft-base") for name, path in drafts.items()}
    for name, draft in found.items():
        evaluation.add(name, draft)
    if not found:
        evaluation.add()
    return evaluation.report(found)


def evaluate_baselines(catalog: Catalog, split: Split, settings: EvaluationSettings, folder: Path | None = None) -> Report:
    """Evaluate the baselines alone, as beside a target.

    Args:
        folder: as for `evaluate`.

    Raises:
        SetupError: the inputs cannot be used.
    """
    users = held_out(split, settings.part, settings.most_users)
    if settings.threads is not None:
        # Where there is a target, they are set when it is loaded.
        torch.set_num_threads(settings.threads)
    rows, left_out = _baselines(settings, split, users, catalog, folder)
    setting, warm = _setting(catalog, settings, timed=0), int(users.warm.sum())
    return Report(setting, len(users), warm, rows=[], baselines=rows, generate_ms={}, generate_equal={}, left_out=left_out)


def _setting(catalog: Catalog, settings: EvaluationSettings, timed: int) -> dict[str, Any]:
    """The part of a report's setting that all evaluations share."""
    return {
        "catalog": {"version": catalog.version, "items": len(catalog)},
        "settings": msgspec.to_builtins(settings),
        "drafts": {},
        "timed_users": timed,
        "threads": settings.threads or torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "date": str(date.today()),
    }


@dataclass(frozen=True)
class _Plain:
    """The lists of plain beam search, and of transformers' `generate`, at one list length."""

    found: Found
    generated: list[list[int]]
    generate_seconds: DoubleArray


def _baselines(
    settings: EvaluationSettings, split: Split, users: HeldOut, catalog: Catalog, folder: Path | None
) -> tuple[list[BaselineRow], dict[str, str]]:
    task = BaselineTask(split, users, len(catalog), keep_seen=settings.keep_seen, networks=settings.networks, folder=folder)
    return baseline_rows(settings.baselines, task, settings.ks)


class _Evaluation:
    """Collects the rows of the report."""

    def __init__(
        self,
        target: ModelFiles,
        catalog: Catalog,
        users: HeldOut,
        settings: EvaluationSettings,
        split: Split,
        neighbours: CatalogNeighbours | None,
        folder: Path | None,
    ) -> None:
        self._split, self._neighbours, self._folder = split, neighbours, folder
        self._target, self._catalog, self._users, self._settings = target, catalog, users, settings
        self._timed = users.spread(settings.timed) if settings.timed else []
        # What the lists of all users leave out, and those of the timed ones.
        self._excluded = None if settings.keep_seen else users.histories
        self._timed_excluded = None if settings.keep_seen else [users.histories[user] for user in self._timed]
        self._rows: list[ModeRow] = []
        self._plain: dict[int, _Plain] = {}
        self._exhaustive: Exhaustive | None = None
        self._reference: GenerateLists | None = None
        self._left_out: dict[str, str] = {}

    def add(self, name: str = "", draft: ModelFiles | None = None) -> None:
        """Evaluate a draft in every mode, or the target alone; the first call also adds the rows of plain beam search."""
        settings = self._settings
        recommender = Recommender.load(
            self._target.directory,
            self._catalog,
            base=self._target.given_base,
            draft=None if draft is None else draft.directory,
            draft_base=None if draft is None else draft.given_base,
            plan="none" if draft is None else settings.plan,
            host=settings.host,
            dtype=settings.dtype,
            quantization=settings.quantization,
            exact=settings.exact,
            threads=settings.threads,
            kv_memory_gib=settings.kv_memory_gib,
            normalise=settings.normalise,
            max_beam_width=max(MAX_BEAM_WIDTH, settings.beam_width, *settings.beam_widths, *settings.ks),
        )
        with closing(recommender):
            check_kinds(self._users.known.details, recommender.prompts.form.kinds)
            # Modes are searched with other plans than the engine was loaded with.
            plan = recommender.engine.plan
            if draft is not None:
                self._check_widths(plan)
            modes = [Mode("", PLAIN, NO_PLAN)]
            if self._neighbours is not None and not self._plain:
                with tqdm(desc="weights of the blend", unit="list") as bar:
                    blended = blended_mode(
                        recommender,
                        self._neighbours,
                        weights=settings.blend,
                        split=self._split,
                        settings=settings,
                        beam=self._beam(CHOSEN_AT, plan),
                        advance=bar.update,
                    )
                modes.append(blended)
            if draft is not None:
                rules = [SearchRule(mode, settings.seed, settings.temperature) for mode in settings.modes]
                modes += [Mode(name, rule.verification, plan, rule) for rule in rules]
            for k in settings.ks:
                self._add_rows(recommender, modes, k)
            self._reference = None
            if settings.exhaustive and self._exhaustive is None:
                with tqdm(total=len(self._users), desc="whole catalog", unit="user") as bar:
                    self._exhaustive = rank_catalog(recommender, self._users, settings.ks, bar.update, keep_seen=settings.keep_seen)

    def _check_widths(self, plan: Plan) -> None:
        """Refuse, as a server does, strict lists of which a level is wider than the plan drafts.

        Raises:
            SetupError: as this says.
        """
        widest = max(self._settings.beam_widths, default=0)
        if Verification.STRICT in self._settings.modes and plan.refusal(widest):
            raise SetupError(
                f"The plan {plan.name} drafts fewer prefixes than the {widest} that a level of --beam-widths keeps: "
                f"give widths of at most {plan.widest_beam}, or a wider plan, such as --plan beam:{widest}."
            )

    def _beam(self, k: int, plan: Plan) -> Beam:
        """The beam of strict lists of k, of which some are drafted for by `plan`."""
        widths = self._settings.beam_widths
        return Beam(max(widths, default=0) or beam_width_for(k, STRICT, self._settings.beam_width, plan.widest_beam), widths)

    def _add_rows(self, recommender: Recommender, modes: Sequence[Mode], k: int) -> None:
        """Add the rows of modes; the first mode is plain beam search."""
        timed = list(self._users.states(self._timed))
        title = f"{modes[-1].draft or PLAIN}, K = {k}"
        first = k not in self._plain
        # All modes of a list length share it, so that their strict lists can be compared.
        beam = self._beam(k, modes[-1].plan)
        with tqdm(total=(len(modes) - (not first)) * len(self._users), desc=title, unit="list") as bar:
            if first:
                found = search_all(recommender, modes[0], self._users.states(), k, beam, bar.update, self._excluded)
                self._plain[k] = _Plain(found, *self._generate(recommender, timed, k, beam))
            seconds = time_modes(recommender, modes, timed, k, beam, self._timed_excluded) if timed else []
            for number, mode in enumerate(modes):
                if number == 0 and not first:
                    continue
                found = self._plain[k].found
                if number:
                    found = search_all(recommender, mode, self._users.states(), k, beam, bar.update, self._excluded)
                timing = _timing(seconds[number], seconds[0], self._plain[k].generate_seconds) if timed else None
                self._rows.append(self._row(mode, k, mode.beam(k, beam), found, timing))

    def _generate(self, recommender: Recommender, timed: list[UserState], k: int, beam: Beam) -> tuple[list[list[int]], DoubleArray]:
        """The lists of `generate` in the precision that is evaluated, and their seconds; none where it can't search with the model."""
        asked = timed[: self._settings.generated]
        # Its beams are as wide at all levels.
        if not asked or beam.widths:
            return [], np.empty(0)
        excluded = None if self._timed_excluded is None else self._timed_excluded[: len(asked)]
        try:
            self._reference = self._reference or GenerateLists(self._target, self._catalog, recommender, self._settings.dtype)
            return self._reference.search(asked, k, beam.width, excluded)
        except GenerateError as error:
            self._left_out["transformers' generate"] = str(error)
            return [], np.empty(0)

    def _row(self, mode: Mode, k: int, beam: Beam, found: Found, timing: Timing | None) -> ModeRow:
        plain = self._plain[k].found.ranked
        return ModeRow(
            draft=mode.draft,
            mode=mode.name,
            k=k,
            quality=quality_of(self._users, found.lists, k),
            accepted_steps=Spread.of(np.array([usage.accepted_steps for usage in found.usage])),
            target_forwards=Spread.of(np.array([usage.target_forwards for usage in found.usage])),
            drafted_nodes=float(np.mean([usage.drafted_nodes for usage in found.usage])),
            lists_equal=sum(one == other for one, other in zip(found.ranked, plain, strict=True)),
            timing=timing,
            beam_width=beam.width,
            beam_widths=beam.widths,
        )

    def report(self, drafts: Mapping[str, ModelFiles]) -> Report:
        """The report of all rows, with the baselines, which learn from the split."""
        ran = {k: plain for k, plain in self._plain.items() if plain.generated}
        asked = self._timed[: self._settings.generated]
        baselines, left_out = _baselines(self._settings, self._split, self._users, self._catalog, self._folder)
        return Report(
            setting=self._setting(drafts),
            users=len(self._users),
            warm_users=int(self._users.warm.sum()),
            rows=self._rows,
            baselines=baselines,
            generate_ms={k: Spread.of(1e3 * plain.generate_seconds) for k, plain in ran.items()},
            generate_equal={
                k: sum(plain.found.ranked[user] == found for user, found in zip(asked, plain.generated, strict=True))
                for k, plain in ran.items()
            },
            exhaustive=self._exhaustive,
            left_out=self._left_out | left_out,
        )

    def _setting(self, drafts: Mapping[str, ModelFiles]) -> dict[str, Any]:
        told = describe_drafts({name: draft.directory for name, draft in drafts.items()})
        return _setting(self._catalog, self._settings, len(self._timed)) | {
            "target": {
                "name": self._target.directory.resolve().name,
                "hash": model_hash(self._target.directory, self._target.given_base),
            },
            "drafts": {name: says | {"hash": model_hash(drafts[name].directory, drafts[name].given_base)} for name, says in told.items()},
        }


def _timing(seconds: DoubleArray, plain: DoubleArray, generate: DoubleArray) -> Timing:
    beside = float(generate.mean() / seconds[: len(generate)].mean()) if len(generate) else None
    return Timing(Spread.of(1e3 * seconds), float(plain.mean() / seconds.mean()), beside)
