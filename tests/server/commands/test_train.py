"""`atspeed train`: from flags to models that the engine serves, and the sentences for what is wrong."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from drafting.alignment.data.splits import SplitRule
from drafting.alignment.recipes import RECIPES
from drafting.alignment.settings import TargetSettings, TrainingMetrics
from drafting.alignment.teacher.data import CATALOG_FILE, TEACHER_FILE, VALID_FILE, Provenance, TeacherManifest
from drafting.catalog.builder import catalog_of
from drafting.catalog.loading import load_catalog
from drafting.embeddings.learnt import Learnt, learnt_file, write_learnt
from drafting.neighbours.source_check import source_of
from drafting.prompts.loading import load_prompt
from drafting.prompts.template import PromptTemplate
from server.commands.app import app
from server.commands.train import train_app
from server.commands.train.running import took
from tests.models import TINY_CONFIG
from verification.recommender import Recommender

ITEMS = 9


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, object]:
    """Users who go round the items one after the other."""
    identifiers = {str(item): [f"<a_{item // 3}>", f"<b_{item % 3}>"] for item in range(ITEMS)}
    catalog_of(identifiers).save(tmp_path / "catalog.jsonl")
    (tmp_path / "data").mkdir()
    for name, line in (("train", range(5)), ("valid", range(5, 6)), ("test", range(6, 7))):
        lines = [" ".join(str(n) for n in [user + 1, *((user + step) % ITEMS + 1 for step in line)]) for user in range(45)]
        (tmp_path / "data" / f"sequential_{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    return {
        "--data": tmp_path / "data",
        "--catalog": tmp_path / "catalog.jsonl",
        "--base": tmp_path / "config.json",
        "--out": tmp_path / "model",
        "--epochs": 1,
    }


def run(flags: dict[str, object], *more: str) -> Result:
    words = [str(word) for pair in flags.items() for word in pair]
    return CliRunner().invoke(train_app, ["target", *words, *more], env={"COLUMNS": "200"})


def test_a_trained_target_is_served_as_it_is(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text('{"max_items": 4}')
    flags |= {"--prompt": tmp_path / "prompt.json", "--epochs": 25, "--batch-size": 8, "--learning-rate": 0.01}
    done = run(flags, "--subsequences")
    assert done.exit_code == 0, done.output
    assert f"Wrote {tmp_path / 'model'}: train loss 0." in done.output
    assert load_prompt(tmp_path / "model").max_items == 4

    recommender = Recommender.load(tmp_path / "model", load_catalog(tmp_path / "catalog.jsonl"), kv_memory_gib=0.01)
    lists = list(recommender.recommend([[item, (item + 1) % ITEMS] for item in range(ITEMS)], k=1))
    recommender.close()
    assert [found.items[0].item for found in lists] == [(item + 2) % ITEMS for item in range(ITEMS)]


def test_a_preset_brings_its_recipe_and_a_flag_goes_before_it(flags: dict[str, object], tmp_path: Path) -> None:
    flags |= {"--base": "small", "--epochs": 2, "--learning-rate": 0.01, "--fit": "all", "--validate-users": 20, "--label-smoothing": 0.1}
    done = run(flags)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    recipe = RECIPES["small"]
    given = {"epochs": 2.0, "learning_rate": 0.01, "fit": "all", "validate_users": 20, "label_smoothing": 0.1}
    assert recipe | given | record["settings"] == record["settings"]
    assert set(recipe) - set(given), "something is left to the recipe"
    epochs = record["metrics"]["validated"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    best = max(epochs, key=lambda epoch: epoch["ndcg"])
    assert f"epoch {best['epoch']} of 2 with validation Recall@10 {best['recall']:.4f} and NDCG@10 {best['ndcg']:.4f}" in done.output
    for part, other in (("test", "train+valid"), ("valid", "train")):
        asked = ["evaluate", "--target", tmp_path / "model", "--catalog", flags["--catalog"], "--data", flags["--data"], "--part", part]
        refused = CliRunner().invoke(app, list(map(str, asked)))
        assert refused.exit_code == 1
        assert f"has learnt the part {part} (--fit all)" in refused.stderr
        assert refused.stderr.rstrip().endswith(f"--fit {other}.")


def test_lists_of_validation_users_keep_what_these_have_met_where_it_is_said(flags: dict[str, object], tmp_path: Path) -> None:
    """Lists of ten hold all nine items, and so each label, which its user had met."""
    lines = [{"user": user, "item": (user + step % 2) % ITEMS, "timestamp": step} for user in range(45) for step in range(6)]
    flags |= {"--data": tmp_path / "repeats", "--validate-users": 45}
    (tmp_path / "repeats").mkdir()
    (tmp_path / "repeats" / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    refused = run(flags)
    assert refused.exit_code == 1
    assert "45 of 45 validation labels are items that their users had met before" in refused.output.replace("\n", " ")
    done = run(flags, "--keep-seen")
    assert done.exit_code == 0, done.output
    assert "validation Recall@10 1.0000" in done.output


def test_without_a_preset_the_defaults_are_those_of_the_settings(flags: dict[str, object], tmp_path: Path) -> None:
    assert run(flags).exit_code == 0
    settings = json.loads((tmp_path / "model" / "training.json").read_text())["settings"]
    assert settings == json.loads(msgspec.json.encode(TargetSettings(epochs=1, split="leave-one-out")))


def test_a_model_is_not_replaced_unasked(flags: dict[str, object], tmp_path: Path) -> None:
    assert run(flags).exit_code == 0
    before = (tmp_path / "model" / "training.json").read_bytes()
    again = run(flags)
    assert again.exit_code == 1
    assert f"{tmp_path / 'model'} already exists: choose another directory, or pass --overwrite" in again.output
    assert (tmp_path / "model" / "training.json").read_bytes() == before
    assert run(flags | {"--seed": 4}, "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "model" / "training.json").read_text())["settings"]["seed"] == 4


def test_a_model_goes_on_with_its_own_prompt(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text('{"max_items": 3}')
    assert run(flags | {"--prompt": tmp_path / "prompt.json"}).exit_code == 0
    assert run(flags | {"--base": tmp_path / "model", "--out": tmp_path / "second"}).exit_code == 0
    assert load_prompt(tmp_path / "second").max_items == 3


def test_a_preset_has_no_prompt_of_a_directory_that_is_called_as_it_is(
    flags: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "prompt.json").write_text('{"max_items": 3}')
    monkeypatch.chdir(tmp_path)
    done = run(flags | {"--base": "draft"})
    assert done.exit_code == 0, done.output
    assert load_prompt(tmp_path / "model") == PromptTemplate()


def test_a_template_and_the_tokens_that_it_needs(flags: dict[str, object], tmp_path: Path) -> None:
    template = {"format": "jinja", "template": "<user_{{ user_id | int % 3 }}>{{ history | join }}<next>", "max_tokens": 60}
    (tmp_path / "prompt.json").write_text(json.dumps(template))
    done = run(flags | {"--prompt": tmp_path / "prompt.json"}, "--add-tokens", "<user_{0..2}>", "--add-tokens", "<next>")
    assert done.exit_code == 0, done.output
    assert load_prompt(tmp_path / "model").contents() == template
    assert json.loads((tmp_path / "model" / "training.json").read_text())["settings"]["add_tokens"] == ["<user_{0..2}>", "<next>"]
    refused = run(flags | {"--prompt": tmp_path / "prompt.json"}, "--overwrite", "--add-tokens", "<next>")
    assert refused.exit_code == 1
    assert "has text that a model from scratch has no tokens for" in refused.output


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--base": "gigantic"}, "There is no base 'gigantic'"),
        ({"--epochs": 0}, "epochs must be above 0"),
        ({"--precision": "int8"}, "There is no training precision 'int8'"),
        (
            {"--neighbour-share": 0.5},
            "--neighbour-share weighs a neighbour model: name its file with --neighbours, or leave --neighbour-share out.",
        ),
        ({"--label-kind": "buy"}, "No interaction is of the kind 'buy': the data says no kinds at all."),
    ],
)
def test_a_wrong_flag_is_said(flags: dict[str, object], change: dict[str, object], sentence: str) -> None:
    done = run(flags | change)
    assert done.exit_code == 1
    assert sentence in done.output


def test_a_target_whose_identifiers_know_more_than_it_learns_is_mentioned(flags: dict[str, object], tmp_path: Path) -> None:
    catalog, source = tmp_path / "catalog.jsonl", source_of(tmp_path / "data", SplitRule())
    write_learnt(learnt_file(catalog), Learnt(load_catalog(catalog).version, "all", source))
    for fit, part in (("train", "valid"), ("train+valid", "test"), ("all", None)):
        done = run(flags | {"--fit": fit, "--epochs": 0.1, "--out": tmp_path / fit})
        assert done.exit_code == 0, done.output
        assert ("so figures there would say little" in done.output) is (part is not None)
        assert part is None or f"were made from the part {part}, too" in done.output


def test_data_that_names_unknown_items_is_said(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "data" / "sequential_test.txt").write_text("".join(f"{user + 1} 10\n" for user in range(45)))
    done = run(flags)
    assert done.exit_code == 1
    assert "item number 10, which is item '9' as these files count from 1, but the catalog has no such item" in done.output
    assert not (tmp_path / "model").exists()


def test_a_prompt_that_is_none_is_said(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text('{"template": "no place for it"}')
    done = run(flags | {"--prompt": tmp_path / "prompt.json"})
    assert done.exit_code == 1
    assert "is not a prompt template: A prompt template must contain {history} exactly once" in done.output


def invoke(command: str, **flags: object) -> Result:
    words = [str(word) for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    return CliRunner().invoke(train_app, [command, *words], env={"COLUMNS": "200"})


def test_a_base_that_no_server_takes_is_refused_before_it_is_trained(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(TINY_CONFIG | {"model_type": "diffllama"}))
    (tmp_path / "base" / "model.safetensors").touch()
    (tmp_path / "teacher").mkdir()
    target = run(flags | {"--base": tmp_path / "base"})
    draft = invoke("draft", teacher=tmp_path / "teacher", base=tmp_path / "base", out=tmp_path / "draft")
    for refused in (target, draft):
        assert refused.exit_code == 1
        assert f"The model in {tmp_path / 'base'} (diffllama) has differential attention, which can't be served." in refused.output


def test_from_target_to_teacher_to_a_draft_that_is_served(flags: dict[str, object], tmp_path: Path) -> None:
    assert run(flags | {"--epochs": 8, "--batch-size": 8, "--learning-rate": 0.01}, "--subsequences").exit_code == 0
    target, catalog, data = (flags[name] for name in ("--out", "--catalog", "--data"))
    taught = invoke("teacher", target=target, data=data, catalog=catalog, out=tmp_path / "teacher", beams=4, kv_memory_gib=0.01)
    assert taught.exit_code == 0, taught.output
    assert "45 prompts in 45 windows; at most " in taught.output
    assert f"Wrote {tmp_path / 'teacher'}: 45 prompts with " in taught.output
    known = {"teacher": tmp_path / "teacher", "target": target, "catalog": catalog}
    drafted = invoke("draft", **known, out=tmp_path / "draft", base=flags["--base"], objective="atspeed-r", epochs=3, batch_size=8)
    assert drafted.exit_code == 0, drafted.output
    assert f"Wrote {tmp_path / 'draft'}: atspeed-r loss " in drafted.output

    histories = [[item, (item + 1) % ITEMS] for item in range(ITEMS)]
    items = load_catalog(Path(str(catalog)))
    lists = []
    for draft, plan in ((None, "none"), (tmp_path / "draft", "beam:6")):
        recommender = Recommender.load(Path(str(target)), items, draft=draft, plan=plan, kv_memory_gib=0.01)
        lists.append([[item.item for item in found.items] for found in recommender.recommend(histories, k=3)])
        recommender.close()
    assert lists[0] == lists[1]

    again = invoke("draft", **known, out=tmp_path / "draft")
    assert again.exit_code == 1
    assert "already exists" in again.output
    assert run(flags | {"--seed": 7}, "--overwrite").exit_code == 0
    stale = invoke("draft", **known, out=tmp_path / "second")
    assert stale.exit_code == 1
    assert "was made with another target" in stale.output


def test_teacher_and_draft_say_what_is_wrong(flags: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = invoke("draft", teacher=tmp_path / "empty", out=tmp_path / "draft")
    assert nothing.exit_code == 1
    assert "holds no teacher data: make it with `atspeed train teacher`" in nothing.output
    unknown = invoke("draft", teacher=tmp_path / "empty", out=tmp_path / "draft", objective="magic")
    assert unknown.exit_code == 1
    assert "There is no objective 'magic'" in unknown.output
    known = {"target": tmp_path / "empty", "data": flags["--data"], "catalog": flags["--catalog"], "out": tmp_path / "teacher"}
    no_model = invoke("teacher", **known)
    assert no_model.exit_code == 1
    assert "is not a model directory" in no_model.output
    alone = invoke("teacher", **known, draft_base=tmp_path / "empty")
    assert alone.exit_code == 1
    assert "--draft-base is the base of --draft: name that, too" in alone.output
    assert not (tmp_path / "teacher").exists()


def test_the_target_of_a_draft_may_be_an_adapter_whose_base_lies_elsewhere(tmp_path: Path) -> None:
    """As of one that names its base by its name on a hub; `--base` is where the draft starts."""
    teacher, target, base = (tmp_path / name for name in ("teacher", "target", "base"))
    for folder in (teacher, target, base):
        folder.mkdir()
    (target / "adapter_config.json").write_text('{"base_model_name_or_path": "hub/base"}')
    for name in (CATALOG_FILE, VALID_FILE):
        (teacher / name).touch()
    made_from = Provenance("0123456789abcdef", "target", "v", {})
    (teacher / TEACHER_FILE).write_bytes(msgspec.json.encode(TeacherManifest(made_from, {}, {}, {}, [])))
    known = {"teacher": teacher, "out": tmp_path / "draft"}
    refused = invoke("draft", **known, target=target)
    assert "needs its base model, and 'hub/base' is no directory here: name it as base_model_name_or_path" in refused.output
    assert ", or with --target-base where the command has that." in refused.output
    found = invoke("draft", **known, target=target, target_base=base)
    assert "was made with another target (hash 0123456789abcdef, now " in found.output
    alone = invoke("draft", **known, target_base=base)
    assert "--target-base is the base of --target: name that, too" in alone.output
    assert refused.exit_code == found.exit_code == alone.exit_code == 1


def test_a_run_that_went_on_tells_whose_time_it_is() -> None:
    """The time is that since the interruption."""
    whole = TrainingMetrics(0.5, None, steps=1200, samples=9, tokens=9, seconds=80.4, tokens_per_second=1.0, resumed_from_step=0)
    assert took(whole) == "1,200 steps in 80 s"
    assert took(msgspec.structs.replace(whole, resumed_from_step=1100, seconds=6.6)) == "1,200 steps, the last 100 in 7 s"
