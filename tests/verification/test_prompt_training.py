"""Training with a template: target, teacher, draft and evaluation read one prompt.json and the same data."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from drafting.alignment.data.loading import load_split
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.draft import train_draft
from drafting.alignment.settings import DraftSettings, TargetSettings, TeacherSettings, TrainingError
from drafting.alignment.target import train_target
from drafting.alignment.teacher.data import ShardFile, read_manifest
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError, PromptError
from drafting.prompts.loading import load_prompt, prompt_of
from tests.models import TINY_CONFIG, random_catalog
from tests.prompt_tokenizers import byte_level
from verification.evaluation.run import evaluate
from verification.evaluation.settings import EvaluationSettings
from verification.hosts.checkpoint import load_tokenizer
from verification.recommender import Recommender
from verification.teacher import make_teacher

CONTENTS = {
    "format": "jinja",
    "template": "{{ user.sort }}{% for item in history %}<{{ item.kind }}>{{ item }}{% endfor %}<buy>{{ behaviours.buy | join }}"
    "{{ context.place | default('<home>') }}",
    "history": {"max_items": 4},
    "behaviours": {"buy": {"max_items": 2, "order": "newest"}},
    "max_tokens": 60,
}
TOKENS = ("<buy>", "<see>", "<home>", "<work>", "<sort_{0..2}>")
SETTINGS = TargetSettings(epochs=1, batch_size=8, subsequences=True, label_kind="buy", add_tokens=TOKENS)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=40, depth=3, codes=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    with (folder / "interactions.jsonl").open("w") as file:
        for user in range(20):
            for time in range(5 + user % 6):
                line = {
                    "user": user,
                    "item": catalog.item_ids[rng.integers(40)],
                    "timestamp": time,
                    "kind": ["see", "buy"][(time + user) % 2],
                }
                file.write(json.dumps(line | ({"context": {"place": "<work>"}} if (time + user) % 3 else {})) + "\n")
    (folder / "profiles.jsonl").write_text("".join(json.dumps({"user": user, "sort": f"<sort_{user % 3}>"}) + "\n" for user in range(20)))
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, data: Path, catalog: Catalog) -> Path:
    out = tmp_path_factory.mktemp("models") / "target"
    train_target(data, catalog, str(data / "config.json"), out, settings=SETTINGS, template=prompt_of(CONTENTS))
    return out


def test_draft_and_evaluation_have_the_targets_prompts(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    teacher, draft = tmp_path / "teacher", tmp_path / "draft"
    settings = TeacherSettings(beams=4, top=4, label_kind="buy", shard_windows=64)
    make_teacher(target, data, catalog, teacher, settings=settings, kv_memory_gib=0.01)
    manifest = read_manifest(teacher)
    assert manifest.prompt == load_prompt(target).contents()
    assert set(manifest.provenance.data) == {"interactions.jsonl", "profiles.jsonl"}

    recommender = Recommender.load(target, catalog, kv_memory_gib=0.01)
    train = load_split(data, catalog, SplitRule(label_kind="buy")).train
    shard = ShardFile(teacher / manifest.shards[0])
    ends = shard.read("token_offsets")
    labels = [(int(train.owners[place]), int(place)) for place in np.flatnonzero(train.labels)]
    # A user's first item is predicted from what was asked before it, if anything was.
    first = [(owner, place) for owner, place in labels if place == train.offsets[owner]]
    labels = [each for each in labels if each not in first or int(train.users[each[0]]) % 3]
    assert 0 < sum(each in first for each in labels) < len(first)
    assert len(ends) - 1 == len(labels) > 20
    for window, (owner, place) in enumerate(labels):
        user = train.state(owner, np.arange(train.offsets[owner], place), place)
        prompt = recommender.prompts.build(user)
        assert shard.read("tokens")[ends[window] : ends[window + 1] - 3].tolist() == prompt.tolist()
        found = next(iter(recommender.recommend([user], 4, 4)))
        assert shard.read("lists")[window].tolist() == list({line.rank: line.item for line in reversed(found.items)}.values())[::-1]
    recommender.close()

    train_draft(teacher, str(data / "config.json"), draft, settings=DraftSettings(epochs=1))
    assert load_prompt(draft) == load_prompt(target)
    report = evaluate(
        target,
        {"draft": draft},
        catalog,
        load_split(data, catalog, SplitRule(label_kind="buy")),
        EvaluationSettings(ks=(3,), timed=2, generated=2, plan="beam:6", kv_memory_gib=0.01),
    )
    assert report.users == 20
    assert all(row.lists_equal == report.users for row in report.rows)
    assert report.generate_equal == {3: 2}


def test_a_chat_model_is_trained_in_its_own_markup(tmp_path: Path, data: Path, catalog: Catalog) -> None:
    tokenizer = byte_level(())
    tokenizer.chat_template = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}<assistant> "
    tokenizer.save_pretrained(tmp_path / "base")
    LlamaForCausalLM(LlamaConfig(**{**TINY_CONFIG, "vocab_size": len(tokenizer), "max_position_embeddings": 512})).save_pretrained(
        tmp_path / "base"
    )
    words = "A {{ user.sort }} had {{ history | join(', ') }}, bought {{ behaviours.buy | join(', ') | default('nothing', true) }}."
    contents = {"chat": True, "messages": [{"role": "user", "content": words}], "behaviours": {"buy": {}}, "after": "on "}
    settings = TargetSettings(epochs=1, batch_size=8)
    train_target(
        data, catalog, str(tmp_path / "base"), tmp_path / "out", settings=settings, template=prompt_of(contents | {"max_tokens": 400})
    )
    recommender = Recommender.load(tmp_path / "out", catalog, kv_memory_gib=0.01)
    train = load_split(data, catalog).train
    user = train.state(5, np.arange(train.offsets[5], train.offsets[6]))
    texts = ["".join(catalog.identifier(event.item)) for event in user.events]
    bought = [text for text, event in zip(texts, user.events, strict=True) if event.kind == "buy"]
    text = f"<user> A <sort_2> had {', '.join(texts)}, bought {', '.join(bought)}.\n<assistant> on "
    trained = load_tokenizer(tmp_path / "out")
    assert recommender.prompts.build(user).tolist() == trained(text, add_special_tokens=False)["input_ids"]
    assert len(next(iter(recommender.recommend([user], 3))).items) >= 3
    recommender.close()


def test_teacher_data_for_another_kind_is_refused(tmp_path: Path, target: Path, data: Path, catalog: Catalog) -> None:
    with pytest.raises(TrainingError, match=r"trained to predict those of the kind 'buy', with label_kind buy: teach with the same\."):
        make_teacher(target, data, catalog, tmp_path / "teacher")


def test_data_that_lacks_what_the_prompt_shows_is_refused_before_the_first_step(tmp_path: Path, data: Path, catalog: Catalog) -> None:
    def refusal(error: type[Exception], **changes: object) -> str:
        form = prompt_of(CONTENTS | changes)
        with pytest.raises(error) as refused:
            train_target(data, catalog, str(data / "config.json"), tmp_path / "out", settings=SETTINGS, template=form)
        return str(refused.value)

    sentence = "The prompt lists behaviours.like. No interaction is of the kind 'like': those of the data are 'buy', 'see'."
    assert refusal(InteractionError, template="{{ behaviours.like | join }}", behaviours={"like": {}}) == sentence
    found = refusal(PromptError, template="{{ history | join }}{{ user.age }}", behaviours={})
    assert found.startswith("No prompt can be made for user '2' of the data: ")
    assert "user.age" in found
    # The user has seen an item before the first that was bought.
    nothing = refusal(PromptError, template="{{ behaviours.buy | join }}", add_special_tokens=False)
    assert nothing.startswith("The prompt of user '2' of the data holds nothing for the model to read, ")
    assert not (tmp_path / "out.partial").exists()
