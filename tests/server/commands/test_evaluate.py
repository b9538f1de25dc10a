"""`atspeed evaluate`: the table, the report's files, and the sentences for what is wrong."""

import json
import os
import shutil
from dataclasses import replace
from errno import EACCES
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from drafting.alignment.data.hashes import model_hash
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.builder import catalog_of
from drafting.catalog.loading import load_catalog
from drafting.embeddings.learnt import Learnt, learnt_file, write_learnt
from drafting.neighbours.build import neighbour_model
from drafting.neighbours.source_check import source_of
from server.commands.evaluate import evaluate
from tests.models import random_catalog, save_random_model
from tests.server.test_cli import forget
from tests.t5_models import save_t5_model
from verification.engine.engine import SpeculativeBeamEngine
from verification.evaluation import searching
from verification.evaluation.baselines import neural
from verification.evaluation.baselines.training import Training

USERS = 6
app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    catalog = random_catalog(items=40, depth=2, codes=7)
    # The paper's files number items; the catalog must name them so.
    catalog_of([(str(index), catalog.identifier(index)) for index in range(40)]).save(folder / "catalog.jsonl")
    items = load_catalog(folder / "catalog.jsonl")
    save_random_model(folder / "target", items, max_items=6)
    save_random_model(folder / "draft", items, hidden=32, layers=1, max_items=6, seed=1)
    (folder / "data").mkdir()
    for name, count in (("train", 5), ("valid", 1), ("test", 2)):
        lines = [
            " ".join(str(n) for n in [user + 1, *((user * 7 + place + count) % 40 + 1 for place in range(count))]) for user in range(USERS)
        ]
        (folder / "data" / f"sequential_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(folder: Path, *more: str) -> Result:
    given = ["--target", folder / "target", "--catalog", folder / "catalog.jsonl", "--data", folder / "data", "--kv-memory-gib", 0.01]
    return CliRunner().invoke(app, [*map(str, given), *more], env={"COLUMNS": "200"})


def test_a_table_a_report_and_plots(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = run(
        folder, "--draft", str(folder / "draft"), "--k", "3,1", "--timed", "2", "--generated", "1", "--exhaustive", "--report", str(out)
    )
    assert done.exit_code == 0, done.output
    assert f"target: {USERS} users" in done.output
    assert "most popular" in done.output
    assert f"Wrote report.json, report.md, accepted_steps.png, recall_speed.png to {out}." in done.output
    kept = json.loads((out / "report.json").read_text())
    assert {(row["draft"], row["mode"], row["k"]) for row in kept["rows"]} == {
        (draft, mode, k) for draft, mode in (("", "plain"), ("draft", "strict")) for k in (1, 3)
    }
    assert kept["exhaustive"]["quality"].keys() == {"1", "3"}
    assert "whole catalog" in done.output
    assert f"AUC {kept['exhaustive']['auc']:.4f}." in done.output
    again = run(folder, "--report", str(out))
    assert again.exit_code == 1
    assert "already holds a report: choose another directory, or pass --overwrite" in again.output


def moved_adapter(base: Path, folder: Path) -> str:
    """An adapter of a model, which it looks for where there is none."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(file.read_text().replace(str(base), "nowhere"))
    return str(folder)


def test_a_target_that_is_an_adapter(folder: Path, tmp_path: Path) -> None:
    """Its base has moved; lists are those that `generate` makes with the merged model."""
    adapter = ("--target", moved_adapter(folder / "target", tmp_path / "adapter"), "--k", "3", "--timed", "2", "--generated", "2")
    refused = run(folder, *adapter)
    assert refused.exit_code == 1
    assert "needs its base model, and 'nowhere' is no directory here: name it as base_model_name_or_path" in refused.output
    assert ", or with --base where the command has that." in refused.output
    done = run(folder, *adapter, "--base", str(folder / "target"), "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    assert "plain beam search's list for 2 of 2 users" in done.output
    kept = json.loads((tmp_path / "report" / "report.json").read_text())
    assert kept["setting"]["target"] == {"name": "adapter", "hash": model_hash(tmp_path / "adapter", folder / "target")}


def test_a_draft_that_is_an_adapter(folder: Path, tmp_path: Path) -> None:
    """Its base has moved: the sentence names an option that the command has."""
    adapter = ("--draft", moved_adapter(folder / "draft", tmp_path / "adapter"), "--k", "3", "--timed", "0", "--baselines", "none")
    refused = run(folder, *adapter)
    assert refused.exit_code == 1
    assert "needs its base model, and 'nowhere' is no directory here: name it as base_model_name_or_path" in refused.output
    assert ", or with --draft-base where the command has that." in refused.output
    done = run(folder, *adapter, "--draft-base", str(folder / "draft"), "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "report" / "report.json").read_text())
    assert kept["setting"]["drafts"]["adapter"]["hash"] == model_hash(tmp_path / "adapter", folder / "draft")


def test_a_draft_of_another_target_is_mentioned(folder: Path) -> None:
    version = load_catalog(folder / "catalog.jsonl").version
    record = {"catalog": {"version": version}, "teacher": {"target": "0123456789abcdef"}}
    (folder / "draft" / "training.json").write_text(json.dumps(record))
    done = run(folder, "--draft", str(folder / "draft"), "--k", "1", "--timed", "0")
    (folder / "draft" / "training.json").unlink()
    assert done.exit_code == 0, done.output
    assert "was taught by another target (hash 0123456789abcdef" in done.output


def test_a_draft_that_may_have_learnt_what_is_held_out_is_mentioned(folder: Path, tmp_path: Path) -> None:
    """A target that was trained elsewhere names no split that teacher data must have; and a T5 is trained as targets are."""
    draft = shutil.copytree(folder / "draft", tmp_path / "draft")
    catalog = {"version": load_catalog(folder / "catalog.jsonl").version}

    def told(record: dict[str, object]) -> str:
        (draft / "training.json").write_text(json.dumps({"catalog": catalog} | record))
        done = run(folder, "--draft", str(draft), "--k", "1", "--timed", "0", "--baselines", "none")
        assert done.exit_code == 0, done.output
        return done.output

    settings = {"split": "leave-one-out", "min_items": 1, "label_kind": None}
    taught = {"target": model_hash(folder / "target")}
    assert "has learnt with" not in told({"teacher": taught | {"settings": settings}, "settings": {"alpha": 0.7}})
    other = told({"teacher": taught | {"settings": settings | {"split": "global-time"}}})
    assert "has learnt with '--split global-time --min-items 1 --fit train', and maybe what is held out here" in other
    assert "has learnt with" not in told({"settings": settings | {"fit": "train+valid"}})
    assert "has learnt with '--split leave-one-out --min-items 1 --fit all', and maybe" in told({"settings": settings | {"fit": "all"}})


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--k", "1,zero"), "--k takes whole numbers from 1 to 2000"),
        (("--beam-widths", "4,many"), "--beam-widths takes whole numbers from 1 on, separated by commas, got '4,many'."),
        (("--beam-widths", "4,2", "--k", "3"), "The last of beam_widths must be at least k, got [4, 2] and k = 3."),
        (("--beam-widths", "4,4,4,4", "--k", "3"), "beam_widths"),
        (("--modes", "strict,hopeful"), "There is no kind of verification 'hopeful': choose strict, gumbel, relaxed."),
        (("--modes", "strict,gumbel"), "--plan and --modes are for drafts: name one with --draft, or leave them out."),
        (("--plan", "trie"), "--plan and --modes are for drafts: name one with --draft, or leave them out."),
        (("--part", "train"), "There is no part 'train': choose test or valid"),
        (("--split", "by-moon"), "There is no split 'by-moon'"),
        (("--plan", "guess", "--draft", "DRAFT"), "There is no plan 'guess'"),
        (("--plan", "items:9", "--draft", "DRAFT"), "The plan items:9 drafts items of a neighbour model, as servers alone do"),
        (("--quantization", "int8"), "The transformers host loads weights as they are: quantizing them needs the vLLM host."),
        (("--exact", "--engine", "vllm"), "The vLLM host can't make lists exact"),
        (("--draft", "DRAFT", "--draft", "DRAFT"), "Two drafts are called 'draft'"),
        (("--draft-base", "DRAFT"), "--draft-base is the base of --draft: name that, too, or leave --draft-base out."),
        (("--blend", "1"), "--blend weighs a neighbour model: name its file with --neighbours, or leave --blend out."),
        (("--networks", "3"), "--networks is for neural baselines: name sasrec or gru4rec with --baselines, or leave --networks out."),
        (("--networks", "2", "--baselines", "none"), "--networks is for neural baselines"),
    ],
)
def test_a_wrong_flag_is_said(folder: Path, flags: tuple[str, ...], sentence: str) -> None:
    done = run(folder, *(flag.replace("DRAFT", str(folder / "draft")) for flag in flags))
    assert done.exit_code == 1
    assert sentence in done.output


def test_too_little_memory_for_a_forward_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(SpeculativeBeamEngine, "step", full)
    done = run(folder, "--k", "1", "--timed", "0", "--baselines", "none")
    assert done.exit_code == 1
    assert "There is too little memory for the models, their keys and values, and what forwards take beside these" in done.output


@pytest.mark.parametrize("flag", ["--timed", "--generated"])
def test_fewer_than_no_users_are_refused(folder: Path, flag: str) -> None:
    done = run(folder, flag, "-1")
    assert done.exit_code == 2
    assert flag in done.output


def test_an_encoder_decoder_target_is_compared_with_generate(folder: Path, tmp_path: Path) -> None:
    target = save_t5_model(tmp_path / "target", load_catalog(folder / "catalog.jsonl"), max_items=6)
    given = ["--target", target, "--catalog", folder / "catalog.jsonl", "--data", folder / "data", "--kv-memory-gib", 0.01]
    flags = ["--k", "3", "--timed", "2", "--generated", "4"]
    done = CliRunner().invoke(app, [*map(str, given), *flags], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "generate" in done.output


def test_an_interrupted_network_goes_on_and_is_not_kept_behind_its_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neural, "MOST_EPOCHS", 2)
    flags = ("--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3", "--baselines", "gru4rec")
    advance, advanced = Training.advance, 0

    def interrupted(self: Training) -> None:
        nonlocal advanced
        advanced += 1
        if advanced == 4:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(Training, "advance", interrupted)
    out, partial = tmp_path / "report", tmp_path / "report.partial"
    assert CliRunner().invoke(app, [*flags, "--report", str(out)]).exit_code
    assert len(list(partial.iterdir())) == 2
    assert CliRunner().invoke(app, [*flags, "--report", str(out)]).exit_code == 0
    assert not partial.exists()
    # The second epoch of the second dropout, and at most two that learn all.
    assert advanced <= 4 + 1 + 2
    again = tmp_path / "again"
    assert CliRunner().invoke(app, [*flags, "--report", str(again)]).exit_code == 0
    found = [json.loads((each / "report.json").read_bytes())["baselines"] for each in (out, again)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        (("--baselines", "gru4rec"), "passive"),
        (("--baselines", "ease"), None),
        (("--target", "target", "--baselines", "gru4rec", "--timed", "0"), "passive"),
        (("--target", "target", "--baselines", "gru4rec", "--timed", "1"), None),
    ],
)
def test_threads_that_train_networks_sleep_while_they_wait_where_nothing_is_timed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], policy: str | None
) -> None:
    def stopped(*_: object) -> None:
        raise ValueError("Far enough.")

    monkeypatch.chdir(folder)
    forget(monkeypatch, "OMP_WAIT_POLICY")
    for name in ("evaluate", "evaluate_baselines"):
        monkeypatch.setattr(f"verification.evaluation.run.{name}", stopped)
    done = CliRunner().invoke(app, ["--catalog", "catalog.jsonl", "--data", "data", *flags], env={"COLUMNS": "200"})
    assert "Far enough." in done.output
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_a_report_has_its_directory_before_anything_is_computed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3", "--baselines", "popular"]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = CliRunner().invoke(app, [*given, "--report", "."])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "here" / "report.json").is_file()
    monkeypatch.setattr("verification.evaluation.run.evaluate_baselines", None)
    for report, sentence in (("../file", "../file is not a directory, in which"), ("../file/report", "cannot be made: Not a directory.")):
        refused = CliRunner().invoke(app, [*given, "--report", report])
        assert refused.exit_code == 1
        assert sentence in refused.output.replace("\n", " ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("baselines", "refuses", "sentence"),
    [
        ("popular", "out", "No files can be written to out, as the report out needs: Permission denied."),
        ("popular,gru4rec", "", "as the report out needs: Permission denied."),
        ("popular", "", "The report cannot be written to out: Is a directory."),
    ],
)
def test_a_report_that_cannot_be_written_is_told_in_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baselines: str, refuses: str, sentence: str
) -> None:
    """Before anything is computed where files can't be made in its directory, or in the one that networks are kept in until then."""
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    (out / "report.md").mkdir(parents=True)

    def probed(dir: Path) -> BytesIO:
        if dir == (Path(refuses) if refuses else tmp_path):
            raise PermissionError(EACCES, "Permission denied")
        return BytesIO()

    monkeypatch.setattr("server.commands.evaluation_report.TemporaryFile", probed)
    if "Permission" in sentence:
        monkeypatch.setattr("verification.evaluation.run.evaluate_baselines", None)
    given = ["--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3", "--baselines", baselines]
    refused = CliRunner().invoke(app, [*given, "--report", str(out)])
    assert refused.exit_code == 1
    assert sentence in refused.output.replace("\n", " ")


def test_a_report_that_is_not_whole_is_none(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make paper` takes what is there for done."""
    given = ["--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3", "--baselines", "popular"]
    out = tmp_path / "report"
    assert CliRunner().invoke(app, [*given, "--report", str(out)]).exit_code == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("verification.evaluation.plots.write_plots", interrupted)
        assert CliRunner().invoke(app, [*given, "--report", str(out), "--overwrite"]).exit_code
    assert [path.name for path in out.iterdir()] == ["report.md"]
    assert CliRunner().invoke(app, [*given, "--report", str(out)]).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "report.md"]


def test_baselines_are_evaluated_without_a_target(folder: Path, tmp_path: Path) -> None:
    """They are the rows that stand beside a target; what is beside a target alone needs one."""
    beside = run(folder, "--k", "3", "--timed", "0", "--baselines", "popular,knn", "--report", str(tmp_path / "beside"))
    assert beside.exit_code == 0, beside.output
    given = ["--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3"]
    out = tmp_path / "alone"
    alone = CliRunner().invoke(app, [*given, "--baselines", "popular,knn", "--report", str(out)], env={"COLUMNS": "200"})
    assert alone.exit_code == 0, alone.output
    assert f"baselines: {USERS} users" in alone.output
    found = [json.loads((path / "report.json").read_text()) for path in (tmp_path / "beside", out)]
    assert found[0]["baselines"] == found[1]["baselines"]
    assert not found[1]["rows"]
    assert "| most popular |" in (out / "report.md").read_text()
    for more in (("--baselines", "none"), ("--draft", str(folder / "draft"))):
        refused = CliRunner().invoke(app, [*given, *more])
        assert refused.exit_code == 1
        assert "name it with --target" in refused.output


def test_baselines_alone_have_the_threads_that_are_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are the same for the same seed and threads, and the report says these. EASE has as many."""
    forget(monkeypatch, "OPENBLAS_NUM_THREADS")
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    given = ["--catalog", str(folder / "catalog.jsonl"), "--data", str(folder / "data"), "--k", "3", "--baselines", "popular"]
    assert CliRunner().invoke(app, [*given, "--threads", "3", "--report", str(tmp_path)]).exit_code == 0
    assert (asked, os.environ.get("OPENBLAS_NUM_THREADS")) == ([3], "3")
    assert json.loads((tmp_path / "report.json").read_text())["setting"]["threads"] == 3


@pytest.mark.parametrize(
    ("target_fit", "fit", "part", "weights", "learnt"),
    [
        ("train", "train", "valid", "1,2", None),
        ("train", "train", "test", "1,2", None),
        ("train+valid", "train+valid", "test", "1", None),
        ("train", "all", "test", "1", ("model", "test", "train+valid")),
        ("train", "all", "valid", "1", ("model", "valid", "train")),
        ("train", "train+valid", "valid", "1", ("model", "valid", "train")),
        ("train", "train+valid", "test", "1,2", ("model", "valid", "train")),
        ("train+valid", "train", "test", "1,2", ("target", "valid", "train")),
        ("train+valid", "train", "valid", "1", ("target", "valid", "train")),
    ],
)
def test_a_blend_is_not_judged_by_labels_that_it_has_learnt(
    folder: Path, tmp_path: Path, target_fit: str, fit: str, part: str, weights: str, learnt: tuple[str, str, str] | None
) -> None:
    """Neither on the part that is asked about nor, where several weights are tried, on the part that chooses."""
    items = load_catalog(folder / "catalog.jsonl")
    target, model = tmp_path / "target", tmp_path / "model.neighbours.safetensors"
    shutil.copytree(folder / "target", target)
    (target / "training.json").write_text(json.dumps({"settings": {"fit": target_fit}}))
    near = np.roll(np.eye(len(items), dtype=np.float32), 7, axis=1)
    source = source_of(folder / "data", SplitRule())
    neighbour_model(near, items.item_ids, kind="knn", decay=0.5, window=5, fit=fit, source=source).save(model)
    flags = ("--part", part, "--neighbours", str(model), "--blend", weights)
    done = run(folder, "--target", str(target), *flags, "--k", "3", "--timed", "0", "--baselines", "none")
    if learnt is None:
        assert done.exit_code == 0, done.output
        assert "blend" in done.output
        return
    path = {"model": model, "target": target}[learnt[0]]
    assert done.exit_code == 1
    assert f"{path} has learnt the part {learnt[1]} (--fit" in done.output
    assert f"made alike with --fit {learnt[2]}." in done.output.replace("\n", " ")
    assert ("Or pass --blend one weight" in done.output) == ("," in weights)


def test_a_blend_comes_from_the_data_that_it_is_judged_on(folder: Path, tmp_path: Path) -> None:
    items = load_catalog(folder / "catalog.jsonl")
    other, model = tmp_path / "other", tmp_path / "model.neighbours.safetensors"
    shutil.copytree(folder / "data", other)
    with (other / "sequential_train.txt").open("a") as file:
        file.write(f"{USERS + 1} 1 2 3\n")
    near = np.roll(np.eye(len(items), dtype=np.float32), 7, axis=1)
    for source, reason in ((source_of(other, SplitRule()), "from other interactions"), (None, "does not say what it was made from")):
        neighbour_model(near, items.item_ids, kind="knn", decay=0.5, window=5, fit="train", source=source).save(model)
        refused = run(folder, "--neighbours", str(model), "--blend", "1", "--k", "3", "--timed", "0", "--baselines", "none")
        assert refused.exit_code == 1
        assert reason in refused.output.replace("\n", " ")


def test_labels_that_no_list_can_hold_are_told(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder / "data", tmp_path / "data")
    (data / "sequential_test.txt").write_text((data / "sequential_valid.txt").read_text())
    flags = ("--data", str(data), "--k", "1", "--timed", "0", "--baselines", "none")
    told = "6 of 6 labels of the part test are items that their users had met before"
    assert told in run(folder, *flags).output
    assert told not in run(folder, *flags, "--keep-seen").output
    assert told not in run(folder, *flags, "--part", "valid").output


def test_identifiers_are_not_judged_by_what_made_them(folder: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.jsonl"
    shutil.copy(folder / "catalog.jsonl", catalog)
    version, source = load_catalog(catalog).version, source_of(folder / "data", SplitRule())
    flags = ("--catalog", str(catalog), "--k", "1", "--timed", "0", "--baselines", "none")
    write_learnt(learnt_file(catalog), Learnt(version, "all", source))
    refused = run(folder, *flags)
    assert refused.exit_code == 1
    assert "were made from the part test, too" in refused.output.replace("\n", " ")
    write_learnt(learnt_file(catalog), Learnt(version, "train+valid", source))
    assert run(folder, *flags).exit_code == 0
    write_learnt(learnt_file(catalog), Learnt(version, "all", replace(source, data="0")))
    doubted = run(folder, *flags)
    assert doubted.exit_code == 0, doubted.output
    assert "were made from other interactions" in doubted.output.replace("\n", " ")


def test_weights_of_a_blend_are_not_chosen_by_what_made_the_identifiers(folder: Path, tmp_path: Path) -> None:
    catalog, model = tmp_path / "catalog.jsonl", tmp_path / "model.neighbours.safetensors"
    shutil.copy(folder / "catalog.jsonl", catalog)
    items, source = load_catalog(catalog), source_of(folder / "data", SplitRule())
    write_learnt(learnt_file(catalog), Learnt(items.version, "train+valid", source))
    near = np.roll(np.eye(len(items), dtype=np.float32), 7, axis=1)
    neighbour_model(near, items.item_ids, kind="knn", decay=0.5, window=5, fit="train", source=source).save(model)
    flags = ("--catalog", str(catalog), "--neighbours", str(model), "--k", "1", "--timed", "0", "--baselines", "none")
    refused = run(folder, *flags, "--blend", "1,2")
    assert refused.exit_code == 1
    told = refused.output.replace("\n", " ")
    assert "were made from the part valid, too" in told
    assert "Or pass --blend one weight" in told
    done = run(folder, *flags, "--blend", "1")
    assert done.exit_code == 0, done.output


def test_a_target_is_judged_by_the_split_that_it_was_trained_with(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    shutil.copytree(folder / "target", target)
    trained = {"split": "leave-one-out", "min_items": 1, "label_kind": None}
    (target / "training.json").write_text(json.dumps({"settings": trained, "data": {"sha256": {"interactions.jsonl": "0"}}}))
    for flags in (("--split", "global-time"), ("--min-items", "3"), ("--label-kind", "buy")):
        refused = run(folder, "--target", str(target), *flags)
        assert refused.exit_code == 1
        assert "was trained with '--split leave-one-out --min-items 1', and may have learnt" in refused.output.replace("\n", " ")
    done = run(folder, "--target", str(target), "--k", "1", "--timed", "0", "--baselines", "none")
    assert done.exit_code == 0, done.output
    assert "The target has learnt other interactions than" in done.output


@pytest.mark.parametrize("name", ["target", "draft"])
def test_a_record_of_training_that_is_damaged_is_told(folder: Path, tmp_path: Path, name: str) -> None:
    model = shutil.copytree(folder / name, tmp_path / name)
    (model / "training.json").write_text("[]")
    refused = run(folder, f"--{name}", str(model), "--k", "1")
    assert refused.exit_code == 1
    assert f"{model / 'training.json'} does not say how the model was trained: " in refused.output


@pytest.mark.parametrize(
    ("fit", "flags", "told"),
    [
        ("train", ("--baselines", "popular"), True),
        ("train", ("--baselines", "none"), False),
        ("train", ("--baselines", "popular", "--part", "valid"), False),
        ("train+valid", ("--baselines", "popular"), False),
    ],
)
def test_baselines_that_have_learnt_more_than_the_target_are_told(
    folder: Path, tmp_path: Path, fit: str, flags: tuple[str, ...], told: bool
) -> None:
    target = shutil.copytree(folder / "target", tmp_path / "target")
    (target / "training.json").write_text(json.dumps({"settings": {"split": "leave-one-out", "fit": fit}}))
    done = run(folder, "--target", str(target), *flags, "--k", "1", "--timed", "0")
    assert done.exit_code == 0, done.output
    assert ("give a target of --fit train+valid to compare them" in done.output) is told


def test_generate_runs_in_the_precision_that_is_evaluated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is loaded once for all list lengths."""
    loaded = []
    load = searching.load_reference
    monkeypatch.setattr(searching, "load_reference", lambda files, dtype: loaded.append(dtype) or load(files, dtype))
    done = run(folder, "--k", "1,3", "--timed", "2", "--generated", "1", "--baselines", "none", "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    assert loaded == [torch.bfloat16]


def test_no_fewest_items_are_not_the_targets(folder: Path) -> None:
    done = run(folder, "--min-items", "0")
    assert done.exit_code == 2
    assert "equal to 1" in done.output
