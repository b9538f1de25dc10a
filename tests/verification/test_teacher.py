"""Teacher data: that lists and distributions are the target's, that a run goes on where it stopped, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import verification.teacher
from drafting.alignment.data.hashes import model_hash
from drafting.alignment.levels import LevelCodes
from drafting.alignment.settings import TeacherSettings, TrainingError
from drafting.alignment.teacher.data import ShardFile, check_provenance, read_manifest
from drafting.alignment.teacher.samples import TeacherSamples, validation_windows
from drafting.alignment.teacher.scores import dense
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import PromptError
from drafting.model_files import ModelFilesError
from drafting.trie.item_trie import ItemTrie
from tests.models import random_catalog, save_family_model, save_random_model
from verification.hosts.checkpoint import load_tokenizer
from verification.recommender import Recommender
from verification.teacher import make_teacher

# From many nodes more lists continue than codes are stored of others.
QUICK = TeacherSettings(beams=6, top=2, trees=2, shard_windows=8)
USERS = 30
WINDOWS = 35  # five users have histories that are longer than a prompt


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=80, depth=3, codes=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    with (folder / "interactions.jsonl").open("w") as file:
        for user in range(USERS):
            for time in range(5 + user % 6):
                item = catalog.item_ids[rng.integers(len(catalog))]
                file.write(json.dumps({"user": user, "item": item, "timestamp": time}) + "\n")
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    return save_random_model(tmp_path_factory.mktemp("models") / "target", catalog, max_items=6)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, target: Path, data: Path, catalog: Catalog) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "data"
    make_teacher(target, data, catalog, out, settings=QUICK, kv_memory_gib=0.01)
    return out


def trie_of(target: Path, catalog: Catalog) -> tuple[ItemTrie, np.ndarray]:
    identifiers = catalog.token_ids(load_tokenizer(target).get_vocab())
    return ItemTrie.build(identifiers), identifiers


def test_the_directory_stands_for_itself(teacher: Path, catalog: Catalog) -> None:
    manifest = read_manifest(teacher)
    assert manifest.provenance.catalog == catalog.version == load_catalog(teacher / "catalog.jsonl").version
    assert manifest.counts["windows"] == WINDOWS
    assert manifest.counts["trees"] > WINDOWS
    assert len(manifest.shards) == 5
    assert not teacher.with_name("data.partial").exists()
    assert {"tokenizer.json", "prompt.json", "valid.safetensors"} <= {path.name for path in teacher.iterdir()}


def test_distributions_and_lists_are_the_targets(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    """Of six codes three are stored: those with which lists continue, and as many of the most probable others as have room."""
    few = TeacherSettings(beams=3, top=2, shard_windows=8)
    make_teacher(target, data, catalog, tmp_path / "teacher", settings=few, kv_memory_gib=0.01)
    trie, identifiers = trie_of(target, catalog)
    levels = LevelCodes.of(identifiers)
    model = AutoModelForCausalLM.from_pretrained(target).eval()
    recommender = Recommender.load(target, catalog, kv_memory_gib=0.01)
    shard = ShardFile(tmp_path / "teacher" / "shard-00000.safetensors")
    tokens, starts, roots = shard.read("tokens"), shard.read("token_offsets"), shard.read("tree_root")
    owner = np.repeat(np.arange(8), np.diff(shard.read("tree_offsets")))
    offsets, trie_nodes, parents = (shard.read(f"node_{name}") for name in ("offsets", "trie", "parent"))
    depths = np.searchsorted(trie.level_starts, trie_nodes, side="right") - 1
    compared = 0
    for tree in range(len(owner)):
        prompt = tokens[starts[owner[tree]] :][: roots[tree] + 1].tolist()
        history = [int(np.flatnonzero((identifiers == prompt[i : i + 3]).all(1))[0]) for i in range(1, len(prompt), 3)]
        found = next(iter(recommender.recommend([history], 3, 3)))
        assert shard.read("lists")[tree].tolist() == [item.item for item in found.firsts]
        for node in range(offsets[tree], offsets[tree + 1]):
            path: list[int] = []
            place = node
            while depths[place]:
                path.insert(0, int(trie.token[trie_nodes[place]]))
                place = offsets[tree] + parents[place]
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + path])).logits[0, -1]
            level = int(depths[node])
            expected_codes = logits[torch.from_numpy(levels.tokens[level])].softmax(0)
            codes = torch.from_numpy(shard.read("node_codes")[node].astype(np.int64))
            kept = torch.from_numpy(shard.read("node_probabilities")[node].astype(np.float32))
            torch.testing.assert_close(kept, expected_codes[codes], atol=1e-3, rtol=2e-3)
            left = sorted(set(range(6)) - set(codes.tolist()))
            assert len(left) == 3
            others = kept[torch.from_numpy(shard.read("node_taken")[node] == 0)]
            if len(others):
                assert expected_codes[left].max() <= others.min() + 1e-3
                compared += 1
    recommender.close()
    # Three lists continue with three codes from one node of a tree at most, of which it has three or more.
    assert compared >= 2 * len(owner) > 0


def test_every_list_token_is_kept_and_counted(teacher: Path, target: Path, catalog: Catalog) -> None:
    trie, _ = trie_of(target, catalog)
    for path in sorted(teacher.glob("shard-*")):
        shard = ShardFile(path)
        lists, offsets = shard.read("lists"), shard.read("node_offsets")
        per_tree = np.add.reduceat(shard.read("node_taken").sum(1), offsets[:-1])
        assert per_tree.tolist() == ((lists >= 0).sum(1) * trie.depth).tolist()


def test_batches_hold_what_the_shards_hold(teacher: Path, target: Path, catalog: Catalog) -> None:
    trie, _ = trie_of(target, catalog)
    manifest = read_manifest(teacher)
    samples = TeacherSamples([teacher / name for name in manifest.shards], trie, 0, answers=True, trees=True)
    assert len(samples) == WINDOWS
    chosen = [34, 3, 17]
    batch = samples.__getitems__(chosen)
    assert int((batch["labels"] != -100).sum()) == len(batch["answer_codes"])
    assert len(batch["node_row"]) == len(batch["node_probabilities"]) == len(batch["node_trie"])
    assert (batch["node_level"][batch["node_trie"] == 0] == 0).all()
    roots = (batch["node_level"] == 0).nonzero()[:, 0]
    # What the target says of a root it also says as the answer at that place of the window.
    at_root = dense(batch["node_codes"][roots], batch["node_probabilities"][roots], 6)
    rows = ((batch["labels"][:, 1:] != -100).nonzero() * torch.tensor([batch["labels"].shape[1], 1])).sum(1)
    same = [int((rows == row).nonzero()[0]) for row in batch["node_row"][roots]]
    stored = batch["answer_codes"][same]
    torch.testing.assert_close(at_root.gather(1, stored), batch["answer_probabilities"][same], atol=2e-3, rtol=0.0)
    assert len(validation_windows(teacher, trie, 0)) == USERS


def test_an_interrupted_run_keeps_its_shards(
    tmp_path: Path, target: Path, data: Path, catalog: Catalog, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    original = verification.teacher.write_shard

    def stop_after_two(path: Path, *arguments: object) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        original(path, *arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(verification.teacher, "write_shard", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            make_teacher(target, data, catalog, out, settings=QUICK, kv_memory_gib=0.01)
    with pytest.raises(TrainingError, match="its run was interrupted: repeat"):
        read_manifest(out)
    # A shard that is cut off is made again; a whole one is kept.
    partial = tmp_path / "out.partial" / "model"
    (partial / made[1].name).write_bytes((partial / made[1].name).read_bytes()[:100])
    kept = (partial / made[0].name).stat().st_mtime_ns
    make_teacher(target, data, catalog, out, settings=QUICK, kv_memory_gib=0.01)
    assert (out / made[0].name).stat().st_mtime_ns == kept
    for path in sorted(teacher.glob("*.safetensors")):
        assert path.read_bytes() == (out / path.name).read_bytes()


@pytest.mark.parametrize("items", [1, 2])
def test_a_user_without_a_prompt_is_named_before_any_list_is_searched(
    items: int, tmp_path: Path, target: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of all users, at an item of the training part or of the validation part, whose prompts were written at the end."""
    shutil.copytree(target, tmp_path / "target")
    template = "{% if history | length == " + str(items) + " %}{{ user.sort }}{% endif %}{{ history | join }}"
    (tmp_path / "target" / "prompt.json").write_text(json.dumps({"format": "jinja", "template": template, "max_tokens": 90}))
    lines = [
        {"user": user, "item": catalog.item_ids[(user + time) % len(catalog)], "timestamp": time} for user in range(9) for time in range(4)
    ]
    (tmp_path / "interactions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "profiles.jsonl").write_text("".join(json.dumps({"user": user, "sort": "<a_0>"}) + "\n" for user in range(8)))
    monkeypatch.setattr(verification.teacher, "find_lists", lambda *_: pytest.fail("a list was searched"))
    with pytest.raises(PromptError, match=r"^No prompt can be made for user '8' of the data: .*user\.sort"):
        make_teacher(tmp_path / "target", tmp_path, catalog, tmp_path / "out", settings=QUICK, kv_memory_gib=0.01)
    assert not (tmp_path / "out.partial").exists()


def test_another_target_or_catalog_is_said(tmp_path: Path, teacher: Path, target: Path, data: Path, catalog: Catalog) -> None:
    manifest = read_manifest(teacher)
    check_provenance(manifest, teacher, manifest.provenance.target, catalog.version)
    with pytest.raises(TrainingError, match="was made with another target"):
        check_provenance(manifest, teacher, "0" * 16, catalog.version)
    with pytest.raises(TrainingError, match="was made with another catalog"):
        check_provenance(manifest, teacher, None, "0" * 12)
    with pytest.raises(TrainingError, match="already exists: choose another directory, or pass --overwrite"):
        make_teacher(target, data, catalog, teacher, settings=QUICK)


def test_a_damaged_shard_is_said(tmp_path: Path, teacher: Path) -> None:
    cut = tmp_path / "shard-00000.safetensors"
    cut.write_bytes((teacher / "shard-00000.safetensors").read_bytes()[:-10])
    with pytest.raises(TrainingError, match=r"is damaged or cut off .*: make the teacher data again with --overwrite"):
        ShardFile(cut).read("tokens")


def test_a_drafts_lists_are_judged_too(tmp_path: Path, target: Path, data: Path, catalog: Catalog, teacher: Path) -> None:
    draft = save_random_model(tmp_path / "draft", catalog, hidden=32, layers=1, max_items=6, seed=5)
    manifest = make_teacher(target, data, catalog, tmp_path / "out", settings=QUICK, draft=draft, kv_memory_gib=0.01)
    assert manifest.counts["nodes"] > read_manifest(teacher).counts["nodes"]
    first, second = (ShardFile(folder / "shard-00000.safetensors") for folder in (teacher, tmp_path / "out"))
    assert first.read("node_taken").sum() == second.read("node_taken").sum()
    # Twice as many lists as the target's, each of which passes one node a level.
    assert not first.has("node_visits")
    roots = second.read("node_offsets")[:-1]
    assert second.read("node_visits")[roots].tolist() == [2 * QUICK.beams] * len(roots)


def test_a_draft_that_is_an_adapter_is_refused_by_the_option_that_names_its_base(
    tmp_path: Path, target: Path, data: Path, catalog: Catalog
) -> None:
    """`--base`, which was named, is the target's."""
    peft = pytest.importorskip("peft")
    base = save_random_model(tmp_path / "base", catalog, hidden=32, layers=1, max_items=6, seed=5)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    asked = (target, data, catalog, tmp_path / "out")
    given: dict[str, Any] = {"settings": QUICK, "draft": tmp_path / "adapter", "kv_memory_gib": 0.01}
    with pytest.raises(ModelFilesError, match=r"or say --draft-base \S+, where the command has that, to take the base's\."):
        make_teacher(*asked, **given)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(ModelFilesError, match=r"is no directory here: name it as .*, or with --draft-base where the command has that\."):
        make_teacher(*asked, **given)
    make_teacher(*asked, **given, draft_base=moved)
    assert ShardFile(tmp_path / "out" / "shard-00000.safetensors").has("node_visits")


def test_a_teacher_keeps_to_the_targets_split(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    copy = shutil.copytree(target, tmp_path / "target")
    (copy / "training.json").write_text('{"settings": {"split": "global-time", "min_items": 5}}')
    with pytest.raises(TrainingError, match="the split global-time of users with at least 5 interactions: teach"):
        make_teacher(copy, data, catalog, tmp_path / "out", settings=QUICK)
    (copy / "training.json").write_text('{"settings": {')
    with pytest.raises(
        TrainingError, match=r"training\.json does not say how the model was trained: .*\. Train it again, or remove the file\."
    ):
        make_teacher(copy, data, catalog, tmp_path / "out", settings=QUICK)
    assert not (tmp_path / "out.partial").exists()


def test_a_target_of_children_is_refused(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    """Its logits of codes that are no children of a prefix are noise, which no draft should learn."""
    copy = shutil.copytree(target, tmp_path / "target")
    (copy / "generation_config.json").write_text(json.dumps({"renormalize_logits": True}))
    with pytest.raises(TrainingError, match="teach with a target that was trained without"):
        make_teacher(copy, data, catalog, tmp_path / "teacher", settings=QUICK)
    assert not (tmp_path / "teacher.partial").exists()


@pytest.mark.parametrize(("options", "sentence"), [({"beams": 0}, "beams must be above 0"), ({"stride": 0}, "stride must be at least 1")])
def test_settings_that_make_no_sense_are_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        TeacherSettings(**options)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 7}),
        ("gemma2", {"sliding_window": 7, "attn_logit_softcapping": 2.0}),
        ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7}),
    ],
)
def test_distributions_are_of_the_attention_that_is_served(
    tmp_path: Path, data: Path, catalog: Catalog, family: str, settings: dict[str, Any]
) -> None:
    """Windows shorter than a prompt, soft caps and sinks, at nodes and at answers, as in plain texts by transformers' own code."""
    target = save_family_model(tmp_path / "target", catalog, family, **settings)
    make_teacher(target, data, catalog, tmp_path / "teacher", settings=TeacherSettings(beams=3, top=6), kv_memory_gib=0.01)
    trie, identifiers = trie_of(target, catalog)
    levels = LevelCodes.of(identifiers)
    model = AutoModelForCausalLM.from_pretrained(target, attn_implementation="eager").eval()
    shard = ShardFile(tmp_path / "teacher" / "shard-00000.safetensors")
    tokens, starts, roots = shard.read("tokens"), shard.read("token_offsets"), shard.read("tree_root")
    offsets, trie_nodes, parents = (shard.read(f"node_{name}") for name in ("offsets", "trie", "parent"))
    first_answers = np.cumsum(shard.read("answers")) - shard.read("answers")

    def check(kind: str, row: int, text: list[int], level: int) -> None:
        with torch.inference_mode():
            logits = model(torch.tensor([text]), use_cache=False).logits[0, -1]
        expected = logits[torch.from_numpy(levels.tokens[level])].softmax(0)
        stored = torch.from_numpy(shard.read(f"{kind}_codes")[row].astype(np.int64))
        found = torch.from_numpy(shard.read(f"{kind}_probabilities")[row].astype(np.float32))
        torch.testing.assert_close(found, expected[stored], atol=1e-3, rtol=2e-3)

    for window in np.argsort(-np.diff(starts), kind="stable")[:3].tolist():
        text = tokens[starts[window] : starts[window + 1]].tolist()
        assert len(text) > 7 + trie.depth
        answers = int(shard.read("answers")[window])
        for answer in range(answers):
            check("answer", int(first_answers[window]) + answer, text[: len(text) - answers + answer], answer % trie.depth)
        for node in range(offsets[window], offsets[window + 1]):
            path, place = [], node - offsets[window]
            while place:
                path.insert(0, int(trie.token[trie_nodes[offsets[window] + place]]))
                place = parents[offsets[window] + place]
            check("node", node, text[: roots[window] + 1] + path, len(path))


def test_a_target_that_is_an_adapter_teaches_what_the_merged_model_does(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(target), config)
    model.save_pretrained(tmp_path / "adapter")
    shutil.copytree(target, tmp_path / "merged")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name, base in (("adapter", target), ("merged", None)):
        out = tmp_path / f"{name} teacher"
        manifest = make_teacher(tmp_path / name, data, catalog, out, base=base, settings=QUICK, kv_memory_gib=0.01)
        assert manifest.provenance.target == model_hash(tmp_path / name, base)
    ours, theirs = (ShardFile(tmp_path / f"{name} teacher" / "shard-00000.safetensors") for name in ("adapter", "merged"))
    np.testing.assert_array_equal(ours.read("lists"), theirs.read("lists"))
    np.testing.assert_allclose(ours.read("node_probabilities"), theirs.read("node_probabilities"), atol=1e-3)
