"""Training a target: that it learns, goes on where it was interrupted, refuses what it should, and writes what can be served."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments

import drafting.alignment.training
from drafting.alignment.bases import BaseError, load_base
from drafting.alignment.progress import ProgressBar
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import TargetSettings, TrainingError
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import InteractionError
from drafting.prompts.loading import load_prompt
from drafting.prompts.template import PromptTemplate
from tests.models import TINY_CONFIG

ITEMS = 12
STEP = 5
QUICK = TargetSettings(epochs=3, batch_size=8, learning_rate=1e-2, subsequences=True, checkpoint_steps=5)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item % 4}>"]) for item in range(ITEMS)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who always go STEP items further, from a place of their own."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "interactions.jsonl").open("w") as file:
        for user in range(60):
            for time in range(4 + user % 5):
                file.write(json.dumps({"user": user, "item": (user + time * STEP) % ITEMS, "timestamp": time}) + "\n")
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(TINY_CONFIG))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, catalog: Catalog, config: str) -> Path:
    """A target that was trained long enough to know the pattern."""
    out = tmp_path_factory.mktemp("models") / "target"
    settings = TargetSettings(epochs=22, batch_size=8, learning_rate=1e-2, subsequences=True)
    train_target(data, catalog, config, out, settings=settings, template=PromptTemplate(max_items=6))
    return out


def test_the_papers_other_data_set_runs_unchanged(tmp_path: Path, config: str) -> None:
    """Random data of its form and size: 49,156 users and 17,332 items, with 248, 256, 254 and 256 codes on the levels."""
    rng = np.random.default_rng(0)
    users, items, sizes = 49_156, 17_332, (248, 256, 254, 256)
    codes = np.stack([np.concatenate([np.arange(size), rng.integers(size, size=items - size)]) for size in sizes], axis=1)
    index = {str(item): [f"<{letter}_{code}>" for letter, code in zip("abcd", row, strict=True)] for item, row in enumerate(codes.tolist())}
    (tmp_path / "items.index.json").write_text(json.dumps(index))
    for part, most in (("train", 5), ("valid", 2), ("test", 2)):
        # Users and items count from 1, and a user may have nothing in a part.
        lengths = rng.integers(most + 1, size=users)
        if part != "train":
            # What is evaluated takes time, and says nothing more of the form.
            lengths[2000:] = 0
        met = np.split(rng.integers(1, items + 1, size=lengths.sum()), np.cumsum(lengths)[:-1])
        lines = [" ".join(map(str, [user, *history.tolist()])) for user, history in enumerate(met, start=1)]
        (tmp_path / f"sequential_{part}.txt").write_text("\n".join(lines) + "\n")
    catalog = load_catalog(tmp_path / "items.index.json")
    assert (len(catalog), len(catalog.tokens)) == (items, sum(sizes))
    settings = TargetSettings(epochs=0.004, subsequences=True)
    metrics = train_target(tmp_path, catalog, config, tmp_path / "out", settings=settings, template=PromptTemplate(max_items=10))
    assert metrics.samples > users // 2
    assert metrics.steps > 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size >= sum(sizes)


def test_a_tiny_target_learns_a_pattern(trained: Path, catalog: Catalog) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained)
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    for item in range(ITEMS):
        history = identifiers[[item, (item + STEP) % ITEMS]].reshape(1, -1)
        answer = identifiers[(item + 2 * STEP) % ITEMS]
        prompt = torch.from_numpy(np.concatenate([[[tokenizer.bos_token_id]], history], axis=1))
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=2, do_sample=False)[0, -2:]
        assert written.tolist() == answer.tolist()


def test_the_directory_says_how_it_came_to_be(trained: Path, catalog: Catalog) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "prompt.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]
    assert load_prompt(trained) == PromptTemplate(max_items=6)
    record = json.loads((trained / "training.json").read_text())
    assert record["settings"]["epochs"] == 22
    assert record["settings"]["seed"] == 0
    assert record["catalog"] == {"version": catalog.version, "items": ITEMS}
    assert len(record["data"]["sha256"]["interactions.jsonl"]) == 64
    assert record["data"]["interactions"]["test"] == 60
    assert record["metrics"]["valid_loss"] < 0.05
    assert record["metrics"]["train_loss"] < 0.1
    assert record["metrics"]["tokens_per_second"] > 0
    assert (trained / "model.safetensors").stat().st_mode == (trained / "config.json").stat().st_mode
    assert not trained.with_name("target.partial").exists()


def test_the_seed_decides_the_model(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        settings = TargetSettings(epochs=1, batch_size=32, seed=seed)
        train_target(data, catalog, config, tmp_path / str(number), settings=settings)
        weights.append(load_file(tmp_path / str(number) / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


class InterruptedBar(ProgressBar):
    """Stands for a user who presses Ctrl-C in the thirteenth step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 13:
            raise KeyboardInterrupt


def interrupt(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(drafting.alignment.training, "ProgressBar", InterruptedBar)
        with pytest.raises(KeyboardInterrupt):
            train_target(*arguments, **options)


@pytest.mark.parametrize("left_out", [0.0, 0.4])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch, left_out: float
) -> None:
    settings = msgspec.structs.replace(QUICK, left_out=left_out)
    whole = train_target(data, catalog, config, tmp_path / "whole", settings=settings)
    interrupt(monkeypatch, data, catalog, config, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()
    # What a kill in the middle of writing a checkpoint leaves must not be taken for one.
    (tmp_path / "out.partial" / "checkpoints" / "checkpoint-12").mkdir()

    resumed = train_target(data, catalog, config, tmp_path / "out", settings=settings)
    assert (whole.resumed_from_step, resumed.resumed_from_step) == (0, 10)
    assert resumed.steps == whole.steps > 13
    assert resumed.valid_loss == pytest.approx(whole.valid_loss, abs=1e-6)
    assert resumed.train_loss == pytest.approx(whole.train_loss, abs=1e-4)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name])


def test_an_interrupted_run_with_other_settings_is_not_gone_on_with(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, data, catalog, config, out, settings=QUICK)
    other = TargetSettings(epochs=1, batch_size=8)
    with pytest.raises(TrainingError, match="holds an interrupted run with other settings or data"):
        train_target(data, catalog, config, out, settings=other)
    assert train_target(data, catalog, config, out, settings=other, overwrite=True).resumed_from_step == 0


def test_a_model_is_replaced_only_when_told_to(tmp_path: Path, data: Path, catalog: Catalog, config: str) -> None:
    out = tmp_path / "out"
    settings = TargetSettings(epochs=1, batch_size=32)
    out.mkdir()
    train_target(data, catalog, config, out, settings=settings)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="already exists: choose another directory, or pass --overwrite"):
        train_target(data, catalog, config, out, settings=settings)
    assert (out / "model.safetensors").read_bytes() == before
    train_target(data, catalog, config, out, settings=TargetSettings(epochs=1, batch_size=32, seed=9), overwrite=True)
    assert (out / "model.safetensors").read_bytes() != before

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(TrainingError, match="is no model directory, so it is not replaced"):
        train_target(data, catalog, config, tmp_path / "photos", settings=settings, overwrite=True)


@pytest.mark.parametrize("out", [".", "..", "mounted"])
def test_a_directory_that_nothing_can_be_moved_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """Before the training, and not behind it; a volume of a container is one that is often named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "mounted")
    with pytest.raises(TrainingError, match=r"^No model directory can be moved to .*: name a directory in it\.$"):
        RunDirectory(Path(out)).refuse_existing(overwrite=True)
    RunDirectory(Path(out) / "model").refuse_existing(overwrite=False)


def test_a_full_disk_is_found_before_the_training(
    tmp_path: Path, data: Path, catalog: Catalog, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10 * 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(TrainingError, match=r"needs about 6\d MiB in .* for the model and 3 checkpoints, but only 10 MiB are free"):
        train_target(data, catalog, config, tmp_path / "out")


def test_what_an_interrupted_run_has_written_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100 * 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    run = RunDirectory(tmp_path / "out")
    run.checkpoints.mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"needs about 164 MiB in .* for teacher data, but only 100 MiB are free"):
        run.check_space(100 * 2**20, "teacher data")
    for folder in (run.checkpoints / "checkpoint-5", run.model, run.best(1)):
        folder.mkdir()
        with (folder / "model.safetensors").open("wb") as file:
            # Without what it would hold, which no disk needs to write for this.
            file.truncate(30 * 2**20)
    run.check_space(100 * 2**20, "teacher data")
    with pytest.raises(TrainingError, match=r"needs about 134 MiB"):
        run.check_space(160 * 2**20, "teacher data")


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """A model that knows some words and no codes."""
    folder = tmp_path / "base"
    words = ["<pad>", "<bos>", "<unk>", "seen", "next", ":", ","]
    raw = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{**TINY_CONFIG, "vocab_size": len(words)})).save_pretrained(folder)
    return folder


def test_a_base_model_gets_the_catalogs_tokens_and_keeps_its_own(tmp_path: Path, data: Path, catalog: Catalog, base_model: Path) -> None:
    template = PromptTemplate(template="seen : {history} next :", separator=",", max_items=4)
    settings = TargetSettings(epochs=15, batch_size=16, learning_rate=1e-2, subsequences=True)
    metrics = train_target(data, catalog, str(base_model), tmp_path / "out", settings=settings, template=template)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["seen", ","]) == [3, 6]
    assert tokenizer.encode("seen <a_1><b_2>", add_special_tokens=False) == [3, *tokenizer.convert_tokens_to_ids(["<a_1>", "<b_2>"])]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == 7 + len(catalog.tokens)
    assert metrics.valid_loss is not None
    assert metrics.valid_loss < 0.6, "guessing the three and four codes of a level would cost 1.24"
    assert json.loads((tmp_path / "out" / "training.json").read_text())["base"]["from_scratch"] is False


def test_what_a_base_says_of_sampling_is_written_again(tmp_path: Path, catalog: Catalog, base_model: Path) -> None:
    """transformers reads it without `do_sample`, and would not save it, behind the training."""
    file = base_model / "generation_config.json"
    file.write_text('{"temperature": 0.9, "top_p": 0.6}')
    load_base(str(base_model), catalog, PromptTemplate(max_items=4)).model.save_pretrained(tmp_path / "out")
    written = json.loads((tmp_path / "out" / file.name).read_text())
    assert {name: written[name] for name in ("temperature", "top_p", "do_sample")} == {"temperature": 0.9, "top_p": 0.6, "do_sample": True}
    file.write_text('{"length_penalty": 2.0}')
    with pytest.raises(BaseError, match=r"or config\.json says of generating texts can't be written again \(.*length_penalty"):
        load_base(str(base_model), catalog, PromptTemplate(max_items=4))


@pytest.mark.parametrize("tied", [False, True])
def test_lora_learns_the_new_tokens_and_is_written_merged(
    tmp_path: Path, data: Path, catalog: Catalog, base_model: Path, tied: bool
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**{**TINY_CONFIG, "vocab_size": 7, "tie_word_embeddings": tied})
    LlamaForCausalLM(config).save_pretrained(base_model)
    template = PromptTemplate(template="seen : {history} next :", separator=",", max_items=4)
    settings = TargetSettings(epochs=15, batch_size=16, learning_rate=1e-2, subsequences=True, lora_rank=4)
    metrics = train_target(data, catalog, str(base_model), tmp_path / "out", settings=settings, template=template)
    assert metrics.valid_loss is not None
    if not tied:  # one matrix cannot both read and write them while all between is frozen noise
        assert metrics.valid_loss < 0.9, "guessing the three and four codes of a level would cost 1.24"
    weights = load_file(tmp_path / "out" / "model.safetensors")
    base = load_file(base_model / "model.safetensors")
    assert not any("lora" in name for name in weights)
    assert ("lm_head.weight" in weights) is not tied
    moved = {name for name, tensor in weights.items() if name not in base or not torch.equal(tensor[: len(base[name])], base[name])}
    layer = "model.layers.0.self_attn"
    expected = {"model.embed_tokens.weight", f"{layer}.q_proj.weight", f"{layer}.v_proj.weight"}
    assert moved == expected | (set() if tied else {"lm_head.weight"})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().num_embeddings == 7 + len(catalog.tokens)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied


@pytest.mark.parametrize(
    ("base", "template", "sentence"),
    [
        (
            "enormous",
            PromptTemplate(),
            r"There is no base .enormous.: give a preset \(small, base, sparse, paper, draft, draft-deep, t5-scratch\), a config.json",
        ),
        ("small", PromptTemplate(separator=", "), "A model from scratch knows the catalog's codes and no words"),
        ("small", PromptTemplate(max_items=300), "A prompt of 300 items and its answer take 603 tokens, but small reads at most 512"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(catalog: Catalog, base: str, template: PromptTemplate, sentence: str) -> None:
    with pytest.raises(BaseError, match=sentence):
        load_base(base, catalog, template)


def test_a_configuration_that_is_none_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(BaseError, match=r"config.json is not a model configuration"):
        load_base(str(tmp_path / "config.json"), catalog, PromptTemplate())


def test_a_base_that_was_saved_in_shards_over_another_one_is_refused(catalog: Catalog, base_model: Path) -> None:
    """transformers would read the one before."""
    AutoModelForCausalLM.from_pretrained(base_model).save_pretrained(base_model, max_shard_size="20KB")
    with pytest.raises(BaseError, match=r"has its weights twice, .* model\.safetensors is the earlier one\."):
        load_base(str(base_model), catalog, PromptTemplate(max_items=4))


@pytest.mark.parametrize("shards", [False, True])
def test_pickles_beside_the_safetensors_of_a_base_are_not_read(catalog: Catalog, base_model: Path, shards: bool) -> None:
    """As transformers and servers do: no matter which of two models they hold."""
    if shards:
        model = AutoModelForCausalLM.from_pretrained(base_model)
        (base_model / "model.safetensors").unlink()
        model.save_pretrained(base_model, max_shard_size="20KB")
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        (base_model / name).write_bytes(b"which is not looked at")
    assert not load_base(str(base_model), catalog, PromptTemplate(max_items=4)).from_scratch


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_a_base_that_does_not_say_how_many_tokens_it_reads_is_refused_as_a_server_does(
    tmp_path: Path, catalog: Catalog, family: str, weights: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "hidden_size": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}))
    if weights:
        (tmp_path / "model.safetensors").write_bytes(b"which are not looked at")
    with pytest.raises(BaseError, match=r"does not say how many tokens the model reads: it has no max_position_embeddings\."):
        load_base(str(tmp_path), catalog, PromptTemplate())


def test_nothing_to_learn_from_is_said(tmp_path: Path, catalog: Catalog, config: str) -> None:
    (tmp_path / "interactions.jsonl").write_text('{"user": 1, "item": 1, "timestamp": 1}\n')
    with pytest.raises(TrainingError, match="There is nothing to learn from: no user has two items"):
        train_target(tmp_path, catalog, config, tmp_path / "out")


def test_an_item_without_identifier_is_said_before_anything_is_written(tmp_path: Path, catalog: Catalog, config: str) -> None:
    (tmp_path / "interactions.jsonl").write_text('{"user": 1, "item": 99, "timestamp": 1}\n')
    with pytest.raises(InteractionError, match="names item '99', but the catalog has no such item"):
        train_target(tmp_path, catalog, config, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.jsonl"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"batch_size": -1}, "batch_size must be above 0"),
        ({"stride": 0}, "stride must be at least 1 item"),
        ({"precision": "int4"}, "no training precision 'int4'"),
        ({"lora_rank": -1}, "lora_rank must not be negative"),
        ({"warmup_share": 1.0}, r"warmup_share must lie in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        TargetSettings(**options)


def test_one_process_trains_on_one_of_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and epochs are those of one, as on a machine with one."""

    def devices(arguments: TrainingArguments) -> torch.device:
        arguments._n_gpu = 4
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(devices))
    arguments = drafting.alignment.training._arguments(RunDirectory(tmp_path / "out"), QUICK)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, QUICK.batch_size)
