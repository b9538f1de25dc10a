"""Training a draft: that every objective teaches the teacher's lists, what the directory says, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import drafting.alignment.draft
import drafting.alignment.training
from drafting.alignment.bases import BaseError, scratch_tokenizer
from drafting.alignment.draft import train_draft
from drafting.alignment.draft_loss import DraftLoss
from drafting.alignment.levels import LevelCodes
from drafting.alignment.needs import NEEDS
from drafting.alignment.progress import ProgressBar
from drafting.alignment.settings import DraftSettings, TrainingError
from drafting.alignment.teacher.samples import TeacherSamples
from drafting.alignment.teacher.scores import dense
from drafting.alignment.tree_batch import answer_rows
from drafting.prompts.loading import load_prompt
from drafting.trie.item_trie import ItemTrie
from tests.drafting.alignment.teachers import CATALOG, ITEMS, LISTS, STEP, TEMPLATE, write_teacher

SEEN = 4  # items in a history: as many as the teacher was asked about
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_steps": 5}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "data")


def draft_log_probs(model_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Per first item of a history, the log-probability of every item as the next one `[ITEMS, ITEMS]`, and the true next item."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    ids = CATALOG.token_ids(tokenizer.get_vocab())
    rows = []
    for item in range(ITEMS):
        history = (item + np.arange(SEEN) * STEP) % ITEMS
        prompt = [tokenizer.bos_token_id, *ids[history].reshape(-1).tolist()]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + list(identifier) for identifier in ids.tolist()])).logits.log_softmax(-1)
        rows.append([float(logits[i, -3, a] + logits[i, -2, b]) for i, (a, b) in enumerate(ids.tolist())])
    return np.array(rows), (np.arange(ITEMS) + SEEN * STEP) % ITEMS


@pytest.mark.parametrize("objective", NEEDS)
def test_every_objective_teaches_the_rule(tmp_path: Path, teacher: Path, objective: str) -> None:
    # Whole items are looked at below, their last tokens included.
    options = {"epochs": 25, "batch_size": 8, "learning_rate": 1e-2, "top": 4, "reach": 2, "beam_width": 2, "last_level": True}
    # And on lists alone, which true items would take half the attention from.
    settings = DraftSettings(objective=objective, true_items=False, **options)
    metrics = train_draft(teacher, str(teacher / "draft_config.json"), tmp_path / "out", settings=settings)
    assert metrics.valid_loss is not None
    log_probs, truth = draft_log_probs(tmp_path / "out")
    if not NEEDS[objective].trees:
        assert (log_probs.argmax(1) == truth).mean() > 0.9
        return
    best = np.argsort(-log_probs, axis=1)[:, :LISTS]
    listed = (truth[:, None] + np.arange(LISTS)) % ITEMS
    overlap = (best[:, :, None] == listed[:, None, :]).any(2)
    assert overlap[:, 0].mean() > 0.8, "the draft's best item is on the teacher's lists; by chance a quarter would be"
    if objective != "atspeed-c":  # which only looks at levels that are drafted, here the first of two
        assert overlap.mean() > 0.65, "and so are most of as many as there are lists"


def test_the_directory_says_how_it_came_to_be(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(drafting.alignment.training, "keep_freed_memory", lambda: kept.append(True))
    train_draft(teacher, str(teacher / "draft_config.json"), tmp_path / "out", settings=DraftSettings(**QUICK))
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["kind"] == "draft"
    assert record["teacher"]["target"] == "0123456789abcdef"
    assert record["catalog"]["version"] == CATALOG.version
    assert record["settings"]["objective"] == "atspeed-s"
    assert load_prompt(tmp_path / "out") == TEMPLATE
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == AutoTokenizer.from_pretrained(teacher).get_vocab()
    assert kept == [True], "what a step frees is for the next one"


class InterruptedBar(ProgressBar):
    """Stands for a user who presses Ctrl-C in the seventh step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 7:
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, settings = str(teacher / "draft_config.json"), DraftSettings(**QUICK)
    train_draft(teacher, base, tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch:
        patch.setattr(drafting.alignment.training, "ProgressBar", InterruptedBar)
        with pytest.raises(KeyboardInterrupt):
            train_draft(teacher, base, tmp_path / "out", settings=settings)
    with pytest.raises(TrainingError, match="holds an interrupted run with other settings or data"):
        train_draft(teacher, base, tmp_path / "out", settings=DraftSettings(**QUICK, objective="sft"))
    assert train_draft(teacher, base, tmp_path / "out", settings=settings).resumed_from_step == 5
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name])


def test_cross_entropy_on_lists_makes_half_an_objective_of_seqkd(teacher: Path) -> None:
    ids = CATALOG.token_ids(AutoTokenizer.from_pretrained(teacher).get_vocab())
    trie = ItemTrie.build(ids)
    batch = TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, trees=True).__getitems__([0, 4, 9])
    torch.manual_seed(0)
    config = json.loads((teacher / "draft_config.json").read_text())
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, vocab_size=len(ids) + 10))

    def loss(objective: str, alpha: float, labels: str) -> float:
        settings = DraftSettings(objective=objective, alpha=alpha, labels=labels, top=3, last_level=True)
        return float(DraftLoss(settings, LevelCodes.of(ids), trie)(model, batch))

    halves = (loss("seqkd", 1.0, "truth") + loss("atspeed-s", 1.0, "truth")) / 2
    assert loss("atspeed-s", 0.5, "lists") == pytest.approx(halves, rel=1e-5)
    assert loss("atspeed-s", 0.5, "truth") != pytest.approx(halves, rel=1e-5)


def test_true_items_are_half_of_what_atspeed_r_compares(teacher: Path) -> None:
    ids = CATALOG.token_ids(AutoTokenizer.from_pretrained(teacher).get_vocab())
    trie, levels = ItemTrie.build(ids), LevelCodes.of(ids)
    batch = TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, answers=True, trees=True).__getitems__([0, 4, 9])
    vocabulary = len(ids) + 10
    logits = torch.randn(*batch["input_ids"].shape, vocabulary, generator=torch.Generator().manual_seed(0))

    def loss(**options: Any) -> float:
        settings = DraftSettings(objective="atspeed-r", alpha=1.0, last_level=True, **options)
        return float(DraftLoss(settings, levels, trie)(lambda **inputs: SimpleNamespace(logits=logits), batch))

    distances = []
    for number, row in enumerate(answer_rows(batch["labels"]).tolist()):
        tokens = torch.from_numpy(levels.tokens[number % trie.depth])
        taught = dense(batch["answer_codes"][number, None], batch["answer_probabilities"][number, None], len(tokens))[0]
        drafted = logits.flatten(0, 1)[row, tokens].softmax(0)
        distances.append(sum(abs(q - p) for q, p in zip(drafted.tolist(), taught.tolist(), strict=True)) / 2)
    assert loss() == pytest.approx((loss(true_items=False) + np.mean(distances)) / 2, rel=1e-5)


@pytest.mark.parametrize("objective", ["atspeed-s", "atspeed-r"])
def test_what_is_never_drafted_is_not_learned_unless_asked_for(teacher: Path, objective: str) -> None:
    ids = CATALOG.token_ids(AutoTokenizer.from_pretrained(teacher).get_vocab())
    trie = ItemTrie.build(ids)
    batch = TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, answers=True, trees=True).__getitems__([0, 4, 9])
    last = batch["node_level"] == trie.depth - 1
    assert last.any()
    vocabulary = len(ids) + 10
    logits = torch.randn(batch["input_ids"].numel(), vocabulary, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def touched(**options: Any) -> bool:
        logits.grad = None
        loss = DraftLoss(DraftSettings(objective=objective, alpha=1.0, top=3, true_items=False, **options), LevelCodes.of(ids), trie)
        loss(lambda **inputs: SimpleNamespace(logits=logits.view(*batch["input_ids"].shape, vocabulary)), batch).backward()
        return bool(logits.grad[batch["node_row"][last]].any())

    assert not touched()
    assert touched(last_level=True)


@pytest.mark.parametrize("objective", ["atspeed-s", "atspeed-r", "seqkd"])
def test_prefixes_of_a_drafts_lists_are_learnt_where_distributions_are_compared(tmp_path: Path, teacher: Path, objective: str) -> None:
    folder = write_teacher(tmp_path / "visited", visited=2)
    ids = CATALOG.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    trie = ItemTrie.build(ids)
    batch = TeacherSamples([folder / "shard-00000.safetensors"], trie, 0, trees=True).__getitems__([0, 4, 9])
    alone = (batch["node_taken"].sum(1) == 0) & (batch["node_level"] == 1)
    assert alone.any()
    assert batch["node_visits"][batch["node_level"] == 0].eq(2).all()
    assert not TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, trees=True)[0]["node_visits"].any()
    settings = DraftSettings(objective=objective, alpha=1.0, top=3, true_items=False, last_level=objective != "seqkd")
    shape = *batch["input_ids"].shape, len(ids) + 10
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    DraftLoss(settings, LevelCodes.of(ids), trie)(lambda **inputs: SimpleNamespace(logits=logits), batch).backward()
    learnt = logits.grad.flatten(0, 1)[batch["node_row"][alone]].any(1)
    assert learnt.all() if objective != "seqkd" else not learnt.any()


@pytest.mark.parametrize(
    ("visited", "counted", "objective", "told"),
    [
        (2, False, "atspeed-s", True),
        (2, False, "seqkd", False),
        (2, True, "atspeed-s", False),
        (0, False, "atspeed-s", False),
    ],
)
def test_lists_of_a_draft_that_are_not_counted_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    visited: int,
    counted: bool,
    objective: str,
    told: bool,
) -> None:
    """As in teacher data of an earlier version."""
    folder = write_teacher(tmp_path / "teacher", visited=visited)
    shard = folder / "shard-00000.safetensors"
    if not counted:
        save_file({name: array for name, array in load_arrays(shard).items() if name != "node_visits"}, shard)
    monkeypatch.setattr(drafting.alignment.draft, "train_model", lambda *given, **more: None)
    train_draft(folder, str(folder / "draft_config.json"), tmp_path / "out", settings=DraftSettings(objective=objective))
    assert ("made with --draft by an earlier version" in caplog.text) == told


@pytest.mark.parametrize("objective", NEEDS)
def test_padding_and_company_change_no_loss(teacher: Path, objective: str) -> None:
    """The loss of a batch is the position-weighted mean of its windows' losses, whatever stands beside them."""
    ids = CATALOG.token_ids(AutoTokenizer.from_pretrained(teacher).get_vocab())
    trie = ItemTrie.build(ids)
    needs = NEEDS[objective]
    samples = TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, answers=needs.answers, trees=needs.trees)
    torch.manual_seed(0)
    config = json.loads((teacher / "draft_config.json").read_text())
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, vocab_size=len(ids) + 10))
    loss = DraftLoss(
        DraftSettings(objective=objective, alpha=1.0, top=3, reach=2, beam_width=2, true_items=False), LevelCodes.of(ids), trie
    )
    chosen = [0, 4, 9, 2]
    together = loss(model, samples.__getitems__(chosen))
    alone, weights = [], []
    for index in chosen:
        batch = samples.__getitems__([index])
        alone.append(loss(model, batch))
        if objective == "atspeed-c":
            weights.append(float(batch["node_tree"].max() + 1))
        else:
            taken = batch["node_taken"].sum(1) if needs.trees else torch.zeros(0)
            if objective in ("atspeed-s", "atspeed-r"):
                taken = taken[batch["node_level"] < trie.depth - 1]
            weights.append(float(taken.sum() if needs.trees else (batch["labels"] != -100).sum()))
    weighted = sum(one * weight for one, weight in zip(alone, weights, strict=True)) / sum(weights)
    torch.testing.assert_close(together, weighted, atol=1e-5, rtol=1e-4)


def test_windows_come_in_one_order_whatever_the_objective(teacher: Path) -> None:
    trie = ItemTrie.build(CATALOG.token_ids(AutoTokenizer.from_pretrained(teacher).get_vocab()))
    shards = [teacher / "shard-00000.safetensors"]
    plain, grown = (TeacherSamples(shards, trie, 0, trees=trees) for trees in (False, True))
    assert (plain.bucket_lengths == grown.bucket_lengths).all()
    assert (plain.lengths < grown.lengths).all()


def test_a_draft_with_other_tokens_is_refused(tmp_path: Path, teacher: Path) -> None:
    config = LlamaConfig(**json.loads((teacher / "draft_config.json").read_text()), vocab_size=10)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    scratch_tokenizer(("<x_1>", "<x_2>")).save_pretrained(tmp_path / "base")
    with pytest.raises(BaseError, match="has another vocabulary than the target"):
        train_draft(teacher, str(tmp_path / "base"), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_what_is_missing_is_said(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(TrainingError, match="holds no teacher data: make it with `atspeed train teacher`"):
        train_draft(tmp_path, "draft", tmp_path / "out")
    copy = write_teacher(tmp_path / "copy", users=10)
    (copy / "shard-00000.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"is not whole: shard-00000.safetensors is missing"):
        train_draft(copy, "draft", tmp_path / "out")
    other = write_teacher(tmp_path / "other", users=10)
    lines = (other / "catalog.jsonl").read_text().splitlines()
    (other / "catalog.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(TrainingError, match="was made with another catalog"):
        train_draft(other, "draft", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"objective": "magic"}, "There is no objective 'magic': choose sft, wordkd"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"density": -1.0}, "density must not be negative"),
        ({"labels": "dice"}, "Cross-entropy can't be taken on 'dice': choose truth or lists"),
        (
            {"objective": "atspeed-c", "beam_width": 50},
            "reach must be at least beam_width, which it has to cover, got 40 and 50",
        ),
        (
            {"objective": "atspeed-c", "beam_width": LISTS + 1},
            f"have {LISTS} lists a prompt, .* give a beam_width of at most {LISTS}, or make teacher data with --beams {LISTS + 1}",
        ),
        ({"labels": "lists", "objective": "wordkd"}, "The objective wordkd reads no lists of the target"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, teacher: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        train_draft(teacher, "draft", tmp_path / "out", settings=DraftSettings(**options))


def test_the_widths_of_one_objective_do_not_hinder_another() -> None:
    assert DraftSettings(objective="sft", beam_width=50).beam_width == 50
