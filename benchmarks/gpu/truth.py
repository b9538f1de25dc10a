"""`make truth`: a target and an AtSpeed-S draft are trained on real interactions on this device, and then measured end to end.

What `benchmarks.gpu.run` takes from an acceptance trace is measured here: how often this draft holds for this target, what the lists are
worth, and what that comes to by the clock, against plain beam search and against transformers' `generate` on the same weights. Invariant:
all three have the same checkpoint in the same precision and are asked one request at a time. Plain search and the planner take turns on the
same users; `generate` is asked for the first of these afterwards, and held against the planner's times for the same.

Beside torch, transformers and numpy it needs accelerate and msgspec, as all training does. What is done is kept, so an interrupted run goes
on where it was; models that were asked for otherwise are refused.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.report import machine
from benchmarks.markdown import markdown_table
from drafting.beam.rule import LONGEST_LIST
from drafting.errors import SetupError

NEEDED = ("accelerate", "msgspec")
LLAMA: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 512, "tie_word_embeddings": False}


def _llama(hidden: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": intermediate}
    return LLAMA | sizes | {"num_attention_heads": heads, "num_key_value_heads": heads}


# Target and draft; with some thousand codes the targets have 3.6 and 108 million parameters. A forward of a draft this small takes as long
# as its layers take to start, so it has one.
SIZES = {
    "tiny": (_llama(32, 1, 2, 64), _llama(16, 1, 2, 32)),
    "small": (_llama(256, 4, 4, 688), _llama(64, 1, 2, 172)),
    "100m": (_llama(768, 15, 12, 2048), _llama(256, 1, 4, 688)),
}
COLUMNS = (
    *("K", "Recall@K", "accepted steps", "target forwards", "lists that differ (ties)", "generate's too"),
    *("planner ms", "plain ms", "generate ms", "over plain", "over generate"),
)


@dataclass(frozen=True)
class TruthRow:
    """One list length.

    Attributes:
        recall: of the planner's lists, the mean over the users.
        different, ties: of the users' lists, how many differ from plain beam search's, and how many only in the order of equal scores.
        generate_different: how many of the `generated` ones differ from plain beam search's as lists of identifiers.
        planner_ms, plain_ms, generate_ms: median per list, `generate`'s of its users alone.
        over_generate: `generate_ms` over the planner's median of the same users.
    """

    k: int
    users: int
    recall: float
    accepted_steps: float
    target_forwards: float
    different: int
    ties: int
    generated: int
    generate_different: int
    planner_ms: float
    plain_ms: float
    generate_ms: float
    over_generate: float

    def cells(self) -> list[str]:
        """The row of the table."""
        return [
            *(str(self.k), f"{self.recall:.4f}", f"{self.accepted_steps:.2f}", f"{self.target_forwards:.2f}"),
            f"{self.different} of {self.users} ({self.ties})",
            f"{self.generate_different} of {self.generated}",
            *(f"{milliseconds:.2f}" for milliseconds in (self.planner_ms, self.plain_ms, self.generate_ms)),
            *(f"{times:.2f}" for times in (self.plain_ms / self.planner_ms, self.over_generate)),
        ]


def train(options: argparse.Namespace) -> tuple[Path, Path]:
    """Target and draft, trained as `atspeed train target|teacher|draft` do; what an earlier run has finished is taken as it is.

    Raises:
        SetupError: inputs can't be used, or an earlier run was asked for other models.
    """
    from drafting.alignment.data.hashes import model_hash
    from drafting.alignment.data.loading import data_hashes
    from drafting.alignment.draft import train_draft
    from drafting.alignment.settings import DraftSettings, TargetSettings
    from drafting.alignment.target import train_target
    from drafting.alignment.teacher.data import check_provenance, read_manifest
    from drafting.catalog.loading import load_catalog
    from verification.teacher import make_teacher

    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    catalog, bases = load_catalog(options.catalog), []
    for name, size in zip(("target", "draft"), SIZES[options.size], strict=True):
        bases.append(work / f"{name}-{options.size}.json")
        bases[-1].write_text(json.dumps(size))
    target, teacher, draft = (work / f"{name}-{options.size}" for name in ("target", "teacher", "draft"))
    if target.exists():
        record = _record(target)
        _check_kept(
            target,
            record["settings"] | {"data": record["data"]["sha256"], "catalog": record["catalog"]["version"]},
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            precision=options.dtype,
            data=data_hashes(options.data),
            catalog=catalog.version,
        )
    else:
        settings = TargetSettings(
            subsequences=True,
            left_out=0.3,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=0.1,
            precision=options.dtype,
        )
        print(f"target: {train_target(options.data, catalog, str(bases[0]), target, settings=settings)}", flush=True)
    if teacher.exists():
        check_provenance(read_manifest(teacher), teacher, model_hash(target), catalog.version)
    else:
        print(f"teacher: {make_teacher(target, options.data, catalog, teacher).counts}", flush=True)
    if draft.exists():
        record = _record(draft)
        was = record["settings"] | {"target": record["teacher"]["target"]}
        _check_kept(draft, was, epochs=options.draft_epochs, precision=options.dtype, target=model_hash(target))
    else:
        aligned = DraftSettings(objective="atspeed-s", epochs=options.draft_epochs, precision=options.dtype)
        print(f"draft: {train_draft(teacher, str(bases[1]), draft, settings=aligned)}", flush=True)
    return target, draft


def _record(model: Path) -> dict[str, Any]:
    """A model's `training.json`."""
    record: dict[str, Any] = json.loads((model / "training.json").read_bytes())
    return record


def _check_kept(model: Path, was: dict[str, Any], **asked: object) -> None:
    """Refuse a model that an earlier run was asked for otherwise: the report would tell of it what is asked now.

    Args:
        was: what it was made with; `asked` names some of that.

    Raises:
        SetupError: it was.
    """
    if others := ", ".join(name for name, value in asked.items() if was.get(name) != value):
        raise SetupError(f"{model} was made otherwise ({others}) than is asked now: name another folder by --work, or remove it.")


def measure(target: Path, draft: Path, options: argparse.Namespace) -> Iterator[TruthRow]:
    """The end-to-end table of a trained pair, row by row."""
    from benchmarks.systems.comparison import compare
    from benchmarks.systems.histories import Trained
    from drafting.alignment.data.loading import load_split
    from drafting.beam.rule import Verification
    from drafting.catalog.loading import load_catalog
    from drafting.model_files import ModelFiles
    from verification.evaluation.metrics import recall
    from verification.evaluation.searching import NO_PLAN, Beam, GenerateLists, Mode, time_modes
    from verification.evaluation.users import held_out
    from verification.recommender import Recommender

    catalog = load_catalog(options.catalog)
    users = held_out(load_split(options.data, catalog, Trained.of(target).rule(options.data)), most=options.users)
    timed = list(users.states(users.spread(options.timed)))
    recommender = Recommender.load(target, catalog, draft=draft, plan="auto", dtype=options.dtype)
    planner = recommender.engine.plan
    generate = GenerateLists(ModelFiles.find(target), catalog, recommender, options.dtype)
    modes = [Mode("", "plain", NO_PLAN), Mode("draft", Verification.STRICT, planner)]
    for k in options.k:
        recommender.engine.use_plan(NO_PLAN)
        plain = list(recommender.recommend(users.states(), k, k))
        recommender.engine.use_plan(planner)
        drafted = list(recommender.recommend(users.states(), k, k))
        found = compare(plain, drafted)
        plain_seconds, planner_seconds = time_modes(recommender, modes, timed, k, Beam(k))
        generated, generate_seconds = generate.search(timed[: options.generated], k, k)
        recommender.engine.use_plan(NO_PLAN)
        ours = [[item.item for item in result.firsts] for result in recommender.recommend(timed[: options.generated], k, k)]
        generate_ms, beside_ms = (1e3 * float(np.median(each)) for each in (generate_seconds, planner_seconds[: len(generated)]))
        yield TruthRow(
            k=k,
            users=len(users),
            recall=float(recall([[item.item for item in result.items] for result in drafted], users.labels, k).mean()),
            accepted_steps=float(np.mean([result.usage.accepted_steps for result in drafted])),
            target_forwards=found.target_forwards,
            different=found.different,
            ties=found.ties,
            generated=len(generated),
            generate_different=sum(one != other for one, other in zip(ours, generated, strict=True)),
            planner_ms=1e3 * float(np.median(planner_seconds)),
            plain_ms=1e3 * float(np.median(plain_seconds)),
            generate_ms=generate_ms,
            over_generate=generate_ms / beside_ms,
        )
    recommender.close()


def markdown(rows: Sequence[TruthRow], options: argparse.Namespace) -> str:
    """The table, with what it was measured on."""
    lines = [
        f"{machine(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))}. {date.today()}.",
        "",
        f"Target `{options.size}` and an AtSpeed-S draft, trained here on {options.data.resolve().name} and served in {options.dtype}; "
        "strict verification with the planner. Lists are counted in full batches over all users asked; times are medians, one request at "
        "a time; *over generate* is of the users that `generate` was asked for.",
        "",
        markdown_table(COLUMNS, (row.cells() for row in rows)),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Trains, measures and prints the table; the status is 1 if inputs cannot be used."""
    large = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="make truth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory of interactions, as for atspeed train")
    parser.add_argument("--catalog", type=Path, required=True, help="catalog of the items")
    parser.add_argument("--work", type=Path, default=Path("build/truth"), help="where models are kept (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="100m" if large else "small", help="of target and draft (default: 100m on a GPU)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of training's arithmetic and of serving")
    parser.add_argument("--epochs", type=float, default=8, help="of the target (default: %(default)s)")
    parser.add_argument("--draft-epochs", type=float, default=5, help="of the draft (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="windows per step of the target (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-4 if large else 1e-3, help="of the target (default: %(default)s)")
    parser.add_argument("--users", type=_users, default=1000, help="test users whose lists are counted (default: %(default)s)")
    parser.add_argument("--timed", type=_users, default=100, help="of them, how many are timed (default: %(default)s)")
    parser.add_argument("--generated", type=int, default=30, help="of those, how many by transformers too (default: %(default)s)")
    parser.add_argument("--k", type=_lengths, default=[1, 3, 5, 10, 20], help="list lengths, separated by commas (default: 1,3,5,10,20)")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, row by row")
    options = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"Training needs {' and '.join(missing)} beside torch and transformers: pip install {' '.join(missing)}.", file=sys.stderr)
        return 1
    from drafting.alignment.bases import BaseError
    from drafting.alignment.settings import TrainingError
    from drafting.errors import InteractionError

    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
    rows: list[TruthRow] = []
    try:
        for row in measure(*train(options), options):
            rows.append(row)
            print(" ".join(f"{name} {cell};" for name, cell in zip(COLUMNS, row.cells(), strict=True)), flush=True)
            if options.markdown:
                # Now, for a machine that is lent for minutes may be taken away before the last row.
                options.markdown.write_text(markdown(rows, options))
    except (SetupError, InteractionError, TrainingError, BaseError) as error:
        print(error, file=sys.stderr)
        return 1
    print(markdown(rows, options))
    return 0


def _lengths(text: str) -> list[int]:
    lengths = [int(word) for word in text.split(",")]
    if not 1 <= min(lengths) <= max(lengths) <= LONGEST_LIST:
        raise argparse.ArgumentTypeError(f"whole numbers from 1 to {LONGEST_LIST} are wanted, got {text!r}")
    return lengths


def _users(text: str) -> int:
    if (users := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted, got {text!r}")
    return users


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
