"""Validated epochs: the best one's model is kept, patience ends a run, more is learnt for as long, and interruptions change nothing."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

import drafting.alignment.training
from drafting.alignment.data.fit import learnt_part
from drafting.alignment.data.interactions import Split
from drafting.alignment.progress import ProgressBar
from drafting.alignment.recipes import RECIPES, with_recipe
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import ListQuality, TargetSettings, TrainingError, ValidatedEpoch
from drafting.alignment.smoothing import SmoothedLoss
from drafting.alignment.target import train_target
from drafting.alignment.validation import EpochValidation
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError, SetupError
from tests.models import TINY_CONFIG

ITEMS = 12
QUICK = TargetSettings(
    epochs=5, batch_size=32, learning_rate=1e-2, subsequences=True, checkpoint_steps=3, dropout=0.1, label_smoothing=0.1, validate_users=9
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item % 4}>"]) for item in range(ITEMS)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = [{"user": user, "item": (user + 5 * time) % ITEMS, "timestamp": time} for user in range(60) for time in range(4 + user % 5)]
    (folder / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(TINY_CONFIG))
    return str(path)


class Judge:
    """Says what it was told to, epoch after epoch, and keeps the weights that it saw."""

    def __init__(self, *ndcg: float) -> None:
        self.ndcg = ndcg
        self.seen: list[dict[str, torch.Tensor]] = []
        self.parts: list[tuple[int, int]] = []

    def __call__(self, model: Path, split: Split) -> ListQuality:
        assert {"tokenizer.json", "prompt.json"} <= {path.name for path in model.iterdir()}
        self.seen.append(load_file(model / "model.safetensors"))
        self.parts.append((len(split.train), len(split.valid)))
        return ListQuality(10, 60, 0.5, self.ndcg[len(self.seen) - 1])


def assert_weights(out: Path, expected: dict[str, torch.Tensor]) -> None:
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, part in found.items():
        torch.testing.assert_close(part, expected[name])


def test_lists_that_cannot_be_made_are_told_with_the_option_that_asks_for_them(
    tmp_path: Path, data: Path, catalog: Catalog, config: str
) -> None:
    """Training has none of the options of serving that would help, such as that of memory."""

    def refusing(model: Path, split: Split) -> ListQuality:
        raise SetupError("There is too little memory: raise --kv-memory-gib.")

    with pytest.raises(TrainingError, match=r"^No epoch can be judged: There is .* Pass --validate-users 0 to train without that\.$"):
        train_target(data, catalog, config, tmp_path / "out", settings=QUICK, validate=refusing)


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_of_one_step_have_the_loss_of_a_run_that_is_not_validated(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, epochs: int
) -> None:
    settings = msgspec.structs.replace(QUICK, epochs=epochs, batch_size=10_000)
    validated = train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=Judge(0.1, 0.2, 0.3))
    settings = msgspec.structs.replace(settings, validate_users=0)
    plain = train_target(data, catalog, config, tmp_path / "plain", settings=settings)
    assert validated.steps == plain.steps == epochs
    assert validated.train_loss == pytest.approx(plain.train_loss)


def test_the_best_epochs_model_is_kept_and_all_are_recorded(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    judge = Judge(0.1, 0.3, 0.2, 0.3, 0.25)
    metrics = train_target(data, catalog, config, tmp_path / "out", settings=QUICK, validate=judge)
    assert metrics.best_epoch == 2
    assert [(epoch.epoch, epoch.ndcg) for epoch in metrics.validated] == [(1, 0.1), (2, 0.3), (3, 0.2), (4, 0.3), (5, 0.25)]
    assert metrics.valid_loss == metrics.validated[1].valid_loss
    assert_weights(tmp_path / "out", judge.seen[1])
    assert not torch.equal(judge.seen[1]["lm_head.weight"], judge.seen[4]["lm_head.weight"])
    recorded = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(recorded["metrics"]["validated"]) == 5
    assert (recorded["settings"]["dropout"], recorded["settings"]["fit"]) == (0.1, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_judging_changes_nothing_of_what_is_learnt(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    judge = Judge(0.1, 0.2, 0.3, 0.4, 0.5)
    train_target(data, catalog, config, tmp_path / "judged", settings=QUICK, validate=judge)
    train_target(data, catalog, config, tmp_path / "out", settings=msgspec.structs.replace(QUICK, validate_users=0))
    assert_weights(tmp_path / "out", judge.seen[-1])


def test_patience_ends_a_run(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    judge = Judge(0.2, 0.3, 0.1, 0.2)
    settings = msgspec.structs.replace(QUICK, patience=2)
    metrics = train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=judge)
    assert ([epoch.epoch for epoch in metrics.validated], metrics.best_epoch) == ([1, 2, 3, 4], 2)
    assert_weights(tmp_path / "out", judge.seen[1])


@pytest.mark.parametrize("fit", ["train+valid", "all"])
def test_more_is_learnt_for_as_long_as_the_training_part_was_best(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, fit: str
) -> None:
    judge = Judge(0.1, 0.4, 0.2, 0.3, 0.1)
    settings = msgspec.structs.replace(QUICK, fit=fit)
    metrics = train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=judge)
    assert len(judge.seen) == 5, "the second run is not judged: it has learnt the validation part"
    assert (metrics.best_epoch, len(metrics.validated), metrics.valid_loss) == (2, 5, None)
    assert metrics.steps == 2 * -(-metrics.samples // QUICK.batch_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_parts_are_what_they_are_called(data: Path, catalog: Catalog) -> None:
    from drafting.alignment.data.loading import load_split

    split = load_split(data, catalog)
    every = sum(map(len, (split.train, split.valid, split.test)))
    assert [len(learnt_part(split, fit)) for fit in ("train", "train+valid", "all")] == [len(split.train), every - len(split.test), every]
    assert learnt_part(split, "all").history(7).tolist() == [(7 + 5 * time) % ITEMS for time in range(6)]


class Interrupted(ProgressBar):
    """Stands for a user who presses Ctrl-C when a step begins for the `run`-th time, after the checkpoint of the one before."""

    step, run, met = 0, 1, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Interrupted.met += state.global_step == self.step
        if Interrupted.met == self.run:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("fit", "step", "run"), [("train", 4, 1), ("train", 6, 1), ("all", 7, 1), ("all", 3, 2)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch, fit: str, step: int, run: int
) -> None:
    """Two batches make an epoch and three steps a checkpoint, so that one falls on an epoch's end, and others behind or before one."""
    figures = (0.1, 0.4, 0.2, 0.3, 0.1)
    settings = msgspec.structs.replace(QUICK, fit=fit, patience=2, batch_size=50)
    whole = train_target(data, catalog, config, tmp_path / "whole", settings=settings, validate=Judge(*figures))
    with monkeypatch.context() as patch:
        patch.setattr(drafting.alignment.training, "ProgressBar", Interrupted)
        for name, value in {"step": step, "run": run, "met": 0}.items():
            patch.setattr(Interrupted, name, value)
        with pytest.raises(KeyboardInterrupt):
            train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=Judge(*figures))
    per_epoch = -(-whole.samples // 50)
    resumed = train_target(
        data, catalog, config, tmp_path / "out", settings=settings, validate=Judge(*figures[step // 3 * 3 // per_epoch :])
    )
    assert resumed.validated == whole.validated
    assert (resumed.best_epoch, resumed.steps) == (whole.best_epoch, whole.steps)
    assert_weights(tmp_path / "out", load_file(tmp_path / "whole" / "model.safetensors"))


@pytest.mark.parametrize("again", [0.3, 0.5])
def test_the_model_is_that_of_the_epoch_that_is_named_where_an_epoch_is_worth_less_the_second_time(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch, again: float
) -> None:
    """Interrupted in the fourth epoch, of two batches, the run goes on within the third, which was the best and is learnt again."""
    settings = msgspec.structs.replace(QUICK, batch_size=50, epochs=4, checkpoint_steps=5)
    first, second = Judge(0.1, 0.4, 0.45), Judge(again, 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(drafting.alignment.training, "ProgressBar", Interrupted)
        for name, value in {"step": 7, "run": 1, "met": 0}.items():
            patch.setattr(Interrupted, name, value)
        with pytest.raises(KeyboardInterrupt):
            train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=first)
    assert sorted(path.name for path in (tmp_path / "out.partial").glob("best*")) == ["best-2", "best-3"]
    found = train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=second)
    assert (found.resumed_from_step, [epoch.ndcg for epoch in found.validated]) == (5, [0.1, 0.4, again, 0.2])
    assert found.best_epoch == (3 if again > 0.4 else 2)
    expected = second.seen[0] if again > 0.4 else first.seen[1]
    assert_weights(tmp_path / "out", expected)


def test_a_run_without_the_model_of_its_best_epoch_is_refused_before_it_goes_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "out")
    run.partial.mkdir()
    run.validated.write_bytes(msgspec.json.encode([ValidatedEpoch(1, 0.1, 0.2, None), ValidatedEpoch(2, 0.1, 0.1, None)]))

    def begun(done: int) -> list[int]:
        validation = EpochValidation(run, None, lambda model: ListQuality(10, 1, 0.5, 0.5))
        validation.begin(10, 50, done, lambda path: None, lambda: None)
        return [epoch.epoch for epoch in validation.epochs]

    assert begun(9) == [], "no epoch has ended by this checkpoint"
    run.best(2).mkdir()
    for done in (10, 20):
        with pytest.raises(TrainingError, match=r"out\.partial holds an interrupted run without the model of its best epoch, 1"):
            begun(done)
    run.best(1).mkdir()
    assert begun(20) == [1, 2]
    run.best(1).rename(run.model)
    assert begun(20) == [1, 2], "all but the end is done"


@pytest.mark.parametrize("epochs", [2.5, 3.0])
def test_a_run_that_could_not_be_published_is_published_by_the_next(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch, epochs: float
) -> None:
    """Whether it ends with an epoch or in the middle of one."""
    settings = msgspec.structs.replace(QUICK, batch_size=50, epochs=epochs, checkpoint_steps=1)
    whole = train_target(data, catalog, config, tmp_path / "whole", settings=settings, validate=Judge(0.1, 0.2, 0.4))
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "publish", lambda self: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(OSError, match="No space"):
            train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=Judge(0.1, 0.2, 0.4))
    found = train_target(data, catalog, config, tmp_path / "out", settings=settings, validate=Judge(0.4))
    assert (found.steps, found.best_epoch, found.validated) == (2 * epochs, 3, whole.validated)
    assert_weights(tmp_path / "out", load_file(tmp_path / "whole" / "model.safetensors"))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    settings = msgspec.structs.replace(QUICK, learning_rate=1e30, validate_users=0)
    with pytest.raises(TrainingError, match=r"The loss is not finite at step .*: try a lower --learning-rate"):
        train_target(data, catalog, config, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", [0, 4])
def test_a_base_from_a_directory_takes_the_same_flags(tmp_path: Path, data: Path, catalog: Catalog, config: str, rank: int) -> None:
    plain = TargetSettings(epochs=1, batch_size=32, subsequences=True)
    train_target(data, catalog, config, tmp_path / "base", settings=plain)
    settings = msgspec.structs.replace(QUICK, lora_rank=rank, epochs=2)
    judge = Judge(0.2, 0.1)
    metrics = train_target(data, catalog, str(tmp_path / "base"), tmp_path / "out", settings=settings, validate=judge)
    assert metrics.best_epoch == 1
    assert_weights(tmp_path / "out", judge.seen[0])
    before = load_file(tmp_path / "base" / "model.safetensors")
    kept = {name for name, part in before.items() if torch.equal(part, judge.seen[0][name])}
    assert bool(kept) == bool(rank), "LoRA leaves most weights alone, and is written merged"
    unjudged = msgspec.structs.replace(settings, validate_users=0)
    train_target(data, catalog, str(tmp_path / "base"), tmp_path / "unjudged", settings=unjudged)
    assert_weights(tmp_path / "unjudged", judge.seen[1])


def test_without_validation_users_nothing_is_begun(tmp_path: Path, catalog: Catalog, config: str) -> None:
    lines = [{"user": user, "item": user % ITEMS, "timestamp": time} for user in range(9) for time in range(2)]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TrainingError, match=r"No epoch can be judged: .* Pass --validate-users 0"):
        train_target(tmp_path, catalog, config, tmp_path / "out", settings=QUICK, validate=Judge())


def test_a_missing_judge_is_refused_before_any_data_is_read(tmp_path: Path, catalog: Catalog, config: str) -> None:
    with pytest.raises(TrainingError, match="pass validate"):
        train_target(tmp_path / "no data", catalog, config, tmp_path / "out", settings=QUICK)


def test_labels_that_users_have_met_are_kept_or_refused(tmp_path: Path, catalog: Catalog, config: str) -> None:
    lines = [{"user": user, "item": (user + time % 2) % ITEMS, "timestamp": time} for user in range(30) for time in range(5)]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InteractionError, match=r"30 of 30 validation labels .*pass --keep-seen"):
        train_target(tmp_path, catalog, config, tmp_path / "out", settings=QUICK, validate=Judge())
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.jsonl"]
    unjudged = msgspec.structs.replace(QUICK, validate_users=0, epochs=1)
    train_target(tmp_path, catalog, config, tmp_path / "unjudged", settings=unjudged)
    kept = msgspec.structs.replace(QUICK, keep_seen=True, epochs=1)
    assert train_target(tmp_path, catalog, config, tmp_path / "out", settings=kept, validate=Judge(0.5)).best_epoch == 1
    assert json.loads((tmp_path / "out" / "training.json").read_text())["settings"]["keep_seen"] is True


def test_a_recipe_gives_way_to_what_is_given() -> None:
    assert with_recipe("paper", {"epochs": 3.0}) == {"epochs": 3.0}
    for base, recipe in RECIPES.items():
        assert TargetSettings(**with_recipe(base, {})) == TargetSettings(**recipe)
        assert with_recipe(base, {"epochs": 3.0}) == recipe | {"epochs": 3.0}
        unjudged = TargetSettings(**with_recipe(base, {"validate_users": 0}))
        assert (unjudged.patience, unjudged.dropout) == (None, recipe["dropout"])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"fit": "everything"}, "There is no fit 'everything': choose train, train\\+valid, all."),
        ({"dropout": 1.0}, "dropout must lie in \\[0, 1\\), got 1.0."),
        ({"label_smoothing": -0.1}, "label_smoothing must lie in \\[0, 1\\), got -0.1."),
        ({"validate_users": -1}, "validate_users must not be negative, got -1."),
        ({"patience": 2, "validate_users": 0}, "needs validate_users"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        TargetSettings(**wrong)


@pytest.mark.parametrize("has_decoder", [False, True])
def test_the_smoothed_loss_is_that_of_the_smoothed_labels(has_decoder: bool) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    labels[0, :2] = -100

    class Model(torch.nn.Module):
        def forward(self, **batch: torch.Tensor) -> Any:
            assert ("labels" in batch) is has_decoder
            return type("Output", (), {"logits": scores})

    found = SmoothedLoss(has_decoder=has_decoder, smoothing=0.2)(Model(), {"input_ids": labels, "labels": labels})
    shift = 0 if has_decoder else 1
    rows = [
        (scores[row, column - shift], labels[row, column]) for row in range(2) for column in range(shift, 5) if labels[row, column] >= 0
    ]
    logs = [(score.log_softmax(0), label) for score, label in rows]
    expected = sum(-(0.8 * log[label] + 0.2 * log.mean()) for log, label in logs) / len(logs)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)
