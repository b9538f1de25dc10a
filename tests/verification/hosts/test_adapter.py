"""Adapters on their base: lists equal to those of peft's own model, on both hosts, or a refusal in a sentence."""

import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from drafting.alignment.data.hashes import model_hash
from drafting.errors import SetupError
from drafting.model_files import ModelFiles
from tests.models import random_catalog, save_random_model, save_tokenizer
from tests.oracles import generate_lists
from tests.verification.engine.test_beam_search import HOSTS, as_pairs, assert_same
from verification.evaluation.generate import PrefixTable
from verification.hosts.adapter import load_merged, load_model_config
from verification.hosts.checkpoint import HostError, auto_class, load_config, load_tokenizer
from verification.hosts.merged_copy import merged_copy
from verification.hosts.weights import check_names
from verification.recommender import Recommender

peft = pytest.importorskip("peft")

CATALOG = random_catalog(items=60, depth=3, codes=6)
SMALLER = random_catalog(items=60, depth=3, codes=4)
HISTORIES = [[1, 2, 3], [7], [5, 9, 11, 30, 31], [40, 2]]
K = 6
# Children that need not import the model libraries anew.
FORK = get_context("fork")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "modules to save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "biases": {"bias": "lora_only"},
    "kept ties": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATSPEED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_random_model(tmp_path / "base", CATALOG, layers=2)


def save_adapter(base: Path, folder: Path, *, tokens: int | None = None, own_head: bool = False, **settings: Any) -> Any:
    """Write an adapter of random weights and return peft's model, which holds it unmerged; `own_head` as resized by transformers 4."""
    model = auto_class(load_config(base)).from_pretrained(base)
    if tokens is not None:
        torch.manual_seed(5)
        model.resize_token_embeddings(tokens, mean_resizing=False)
        if own_head:
            model.get_output_embeddings().weight = torch.nn.Parameter(torch.randn(tokens, model.config.hidden_size))
    config = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**(config | settings)))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.15)
    wrapped.save_pretrained(folder)
    shutil.copy(base / "prompt.json", folder)
    return wrapped.eval()


def assert_lists_of(model: Any, recommender: Recommender, tokenizer: Path) -> None:
    """The recommender's lists are those that transformers' `generate` makes with the model."""
    identifiers = CATALOG.token_ids(load_tokenizer(tokenizer).get_vocab())
    table = PrefixTable(identifiers)
    for history, result in zip(HISTORIES, recommender.recommend(HISTORIES, K, K), strict=True):
        (theirs,) = generate_lists(model, [recommender.prompts.build(history)], table, K, CATALOG.identifier_length)
        assert_same(as_pairs(result, identifiers), theirs)


def load(folder: Path, host: str = "transformers", **options: Any) -> Recommender:
    return Recommender.load(folder, CATALOG, host=host, kv_memory_gib=0.01, **options)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(SetupError) as refused:
        load(folder, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_those_of_peft(tmp_path: Path, kind: str, tied: bool) -> None:
    base = save_random_model(tmp_path / "base", CATALOG, layers=2, tied=tied)
    model = save_adapter(base, tmp_path / "adapter", **KINDS[kind])
    recommender = load(tmp_path / "adapter")
    assert_lists_of(model, recommender, base)
    recommender.close()
    assert not (tmp_path / "cache").exists()


RESIZED: dict[str, dict[str, Any]] = {
    "whole embeddings": {},
    "adapted embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "single tokens": {"trainable_token_indices": [3, 17, 20]},
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", RESIZED)
def test_a_base_that_was_resized(tmp_path: Path, kind: str, tied: bool) -> None:
    base = save_random_model(tmp_path / "base", SMALLER, layers=1, tied=tied)
    save_tokenizer(CATALOG, tmp_path / "adapter")
    tokens = len(load_tokenizer(tmp_path / "adapter"))
    model = save_adapter(base, tmp_path / "adapter", tokens=tokens, **RESIZED[kind])
    recommender = load(tmp_path / "adapter")
    assert_lists_of(model, recommender, tmp_path / "adapter")
    recommender.close()


@pytest.mark.parametrize(
    ("host", "tied"),
    [
        ("transformers", False),
        ("transformers", True),
        pytest.param("vllm", False, marks=[*HOSTS[1].marks, pytest.mark.exhaustive]),
        pytest.param("vllm", True, marks=HOSTS[1].marks),
    ],
)
def test_added_tokens_and_saved_modules_on_both_hosts(tmp_path: Path, host: str, tied: bool, cache: Path) -> None:
    """A base that lacks some of the catalog's tokens; the adapter brings them, and the tokenizer that knows them."""
    base = save_random_model(tmp_path / "base", SMALLER, layers=2, tied=tied)
    save_tokenizer(CATALOG, tmp_path / "adapter")
    saved = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    model = save_adapter(base, tmp_path / "adapter", tokens=len(load_tokenizer(tmp_path / "adapter")), modules_to_save=saved)
    for _ in range(2):
        recommender = load(tmp_path / "adapter", host)
        assert_lists_of(model, recommender, tmp_path / "adapter")
        recommender.close()
    assert len(list((cache / "merged").glob("adapter-float32-*")) if host == "vllm" else [cache]) == 1


def test_a_draft_may_be_an_adapter(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "draft")
    recommender = load(base, draft=tmp_path / "draft", plan="beam:6")
    assert_lists_of(AutoModelForCausalLM.from_pretrained(base).eval(), recommender, base)
    recommender.close()


def test_the_base_of_a_draft_is_named_by_a_flag_of_its_own(base: Path, tmp_path: Path) -> None:
    """Target and draft may both be adapters, of different bases that have moved."""
    small = save_random_model(tmp_path / "small", CATALOG, layers=1, hidden=32, seed=1)
    model = save_adapter(base, tmp_path / "target")
    save_adapter(small, tmp_path / "draft")
    given = {"base": base.rename(tmp_path / "moved"), "draft": tmp_path / "draft", "draft_base": small.rename(tmp_path / "away")}
    recommender = load(tmp_path / "target", plan="beam:6", **given)
    assert_lists_of(model, recommender, tmp_path / "moved")
    drafted = [result.usage.drafted_nodes for result in recommender.recommend(HISTORIES, K, K)]
    recommender.close()
    assert min(drafted) > 0
    sentence = (
        f"The adapter in {tmp_path / 'draft'} needs its base model, and {str(small)!r} is no directory here: name it as "
        "base_model_name_or_path in its adapter_config.json, or with --draft-base where the command has that."
    )
    assert refusal(tmp_path / "target", plan="beam:6", **(given | {"draft_base": None})) == sentence
    whole = given | {"draft": tmp_path / "away"}
    assert refusal(tmp_path / "target", **whole).endswith("has no adapter_config.json: leave --draft-base out.")
    alone = given | {"draft": None}
    assert refusal(tmp_path / "target", **alone).startswith(f"There is no draft whose base {tmp_path / 'away'} could be: ")


def test_the_base_is_the_one_that_is_given(base: Path, tmp_path: Path) -> None:
    """An adapter that names a base that is not here, or has moved; with `base`, its prompt and tokenizer serve too."""
    model = save_adapter(base, tmp_path / "adapter")
    moved = base.rename(tmp_path / "moved")
    assert refusal(tmp_path / "adapter") == (
        f"The adapter in {tmp_path / 'adapter'} needs its base model, and {str(base)!r} is no directory here: name it as "
        "base_model_name_or_path in its adapter_config.json, or with --base where the command has that."
    )
    (tmp_path / "adapter" / "prompt.json").unlink()
    recommender = load(tmp_path / "adapter", base=moved)
    assert recommender.prompts.max_items == 20
    assert_lists_of(model, recommender, moved)
    recommender.close()
    assert refusal(moved, base=moved) == f"Only adapters have a base, and {moved} has no adapter_config.json: leave --base out."


def test_whose_prompt_it_is_must_be_clear(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "prompt.json").unlink()
    sentence = refusal(tmp_path / "adapter")
    assert sentence.startswith(f"The adapter in {tmp_path / 'adapter'} has no prompt.json, and that of its base may not be the prompt")


def settings(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    path = "adapter_model.safetensors"
    return lambda folder: save_file(change(load_file(folder / path)), folder / path, {"format": "pt"})


EMBEDDINGS = "base_model.model.model.embed_tokens.weight"
MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (settings(peft_type="PROMPT_TUNING"), "is of the kind PROMPT_TUNING: only LoRA"),
    "a part of each text": (settings(alora_invocation_tokens=[1]), "can't be merged, because it is applied to a part of each text"),
    "no base": (settings(base_model_name_or_path=None), "does not name the adapter's base model: name it there as base_model"),
    "no configuration": (lambda folder: (folder / "adapter_config.json").write_text("[]"), "is damaged: it is no configuration"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no weights: no adapter_model.safetensors"),
    "cut off": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"12345"), "the file is damaged or cut off"),
    "a layer is missing": (weights(lambda found: {k: w for k, w in found.items() if "layers.1" not in k}), "does not belong to its"),
    "a layer too many": (weights(lambda found: found | {"base_model.model.model.layers.9.q": torch.ones(2)}), "does not belong to its"),
    "other modules": (settings(target_modules=["nothing"]), "cannot be merged into its base"),
    "some embeddings": (weights(lambda found: found | {EMBEDDINGS: torch.ones(99, 64)}), "does not hold all of their embeddings"),
    "leftover of a merge": (lambda folder: (folder / "model.safetensors").touch(), "but model.safetensors lies beside it"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_adapters_that_are_refused(base: Path, tmp_path: Path, mistake: str) -> None:
    save_adapter(base, tmp_path / "adapter")
    change, reason = MISTAKES[mistake]
    change(tmp_path / "adapter")
    assert reason in refusal(tmp_path / "adapter")


def test_a_base_that_is_an_adapter(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    shutil.copytree(tmp_path / "adapter", tmp_path / "second")
    assert "is itself an adapter" in refusal(tmp_path / "adapter", base=tmp_path / "second")


def test_without_peft(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(base, tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(HostError, match=r"pip install 'atspeed-server\[train\]'\.$"):
        load_merged(files, load_model_config(files), torch.float32)


def test_the_hash_covers_base_and_adapter(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(base, adapter)
    first = model_hash(adapter)
    moved = base.rename(tmp_path / "moved")
    assert model_hash(adapter, moved) == first != model_hash(moved)
    weights(lambda found: {name: weight + 1 for name, weight in found.items()})(adapter)
    assert len({first, second := model_hash(adapter, moved)}) == 2
    (moved / "model.safetensors").write_bytes(b"other")
    assert model_hash(adapter, moved) not in {first, second}


def files_of(base: Path, tmp_path: Path) -> ModelFiles:
    save_adapter(base, tmp_path / "adapter")
    return ModelFiles.find(tmp_path / "adapter")


def copy_of(files: ModelFiles) -> Path:
    return merged_copy(files, load_model_config(files), torch.float32)


def test_a_merged_copy_is_made_once_and_is_a_whole_model(base: Path, tmp_path: Path, cache: Path) -> None:
    files = files_of(base, tmp_path)
    (cache / "merged" / "building-leftover").mkdir(parents=True)
    copy = copy_of(files)
    assert copy.name == f"adapter-float32-{model_hash(tmp_path / 'adapter')}"
    assert {path.name for path in copy.parent.iterdir()} == {copy.name, "lock"}
    check_names(copy)
    made = (copy / "model.safetensors").stat().st_mtime_ns
    assert copy_of(files) == copy
    assert (copy / "model.safetensors").stat().st_mtime_ns == made
    weights(lambda found: {name: weight + 1 for name, weight in found.items()})(tmp_path / "adapter")
    assert copy_of(files) != copy


def test_a_merged_copy_needs_nothing_of_how_its_base_generates_texts(base: Path, tmp_path: Path) -> None:
    """transformers reads a temperature without `do_sample`, and refuses to write it."""
    (base / "generation_config.json").write_text('{"temperature": 0.9}')
    check_names(copy_of(files_of(base, tmp_path)))


def copy_together(files: ModelFiles, together: Barrier) -> Path:
    together.wait(60)
    return copy_of(files)


def test_two_processes_make_one_copy(base: Path, tmp_path: Path, cache: Path) -> None:
    files = files_of(base, tmp_path)
    with FORK.Manager() as manager, ProcessPoolExecutor(2, FORK) as pool:
        first, second = pool.map(copy_together, [files] * 2, [manager.Barrier(2)] * 2)
    assert first == second
    assert {path.name for path in (cache / "merged").iterdir()} == {first.name, "lock"}
    check_names(first)


def test_a_disk_without_room_for_the_copy(base: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(base, tmp_path)
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(HostError, match=r"which vLLM needs, takes up to 0\.0\d GiB in .*, where 0\.00 GiB are free"):
        copy_of(files)
    assert [path.name for path in (cache / "merged").iterdir()] == ["lock"]


def limit_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_disk_that_fills_up_leaves_nothing(base: Path, tmp_path: Path, cache: Path) -> None:
    """A file-size limit of the process stands for the full disk: the write fails as it does there."""
    files = files_of(base, tmp_path)
    with ProcessPoolExecutor(1, FORK, limit_files) as pool, pytest.raises(HostError, match="can't be written to"):
        pool.submit(copy_of, files).result()
    assert [path.name for path in (cache / "merged").iterdir()] == ["lock"]


def test_a_cache_that_cannot_be_written(base: Path, tmp_path: Path, cache: Path) -> None:
    files = files_of(base, tmp_path)
    cache.write_text("a file")
    with pytest.raises(HostError, match="can't be written to"):
        copy_of(files)
