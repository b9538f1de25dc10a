"""Questions that can and can't be answered share one engine, and answers keep their order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from drafting.beam.rule import SearchRule, Verification
from drafting.errors import SetupError
from drafting.prompts.loading import prompt_of
from drafting.prompts.user_state import UserEvent, UserState
from server.offline.questions import Defaults, Question, UserLine, answers, make_question, read_line
from tests.models import random_catalog, save_random_model
from tests.verification.engine.test_not_finite import damage
from verification import batch
from verification.recommender import Recommender


def test_every_question_gets_its_answer_in_its_place(tmp_path: Path):
    catalog = random_catalog(items=30, depth=2, codes=5)
    model = save_random_model(tmp_path / "model", catalog, layers=1)
    recommender = Recommender.load(model, catalog, kv_memory_gib=0.01)
    questions: list[Question | str] = [Question([number % 30], 1 + number % 9) for number in range(2 * batch.MOST_RUNNING)]
    questions[0], questions[70], questions[71] = "No such item.", Question([], 4), "Not a line."
    questions[72] = Question([1], 9, beam_width=3)
    most = 0

    def asked():
        nonlocal most
        for question in questions:
            yield question
            most = max(most, recommender.engine.running)

    found = list(answers(recommender, asked()))
    assert (found[0], found[71]) == ("No such item.", "Not a line.")
    assert "history is empty" in found[70]
    assert "beam_width" in found[72]
    for number, (question, answer) in enumerate(zip(questions, found, strict=True)):
        if number not in (0, 70, 71, 72):
            assert answer.request_id == str(number)
            assert len({item.rank for item in answer.items}) == question.k
    assert 1 < most <= batch.MOST_RUNNING
    assert recommender.engine.used_slots == recommender.engine.running == 0
    # Where there is memory for no wider beams, those that name none are narrower than by default.
    recommender.engine.max_beam_width = 20
    fits, refused = answers(recommender, [Question([1], 9), Question([1], 21)])
    assert len({item.rank for item in fits.items}) == 9
    assert "raise --max-beam-width" in refused


def test_a_list_that_the_engine_cannot_hold_gets_a_sentence(tmp_path: Path):
    catalog = random_catalog(items=30, depth=3, codes=5)
    model = save_random_model(tmp_path / "model", catalog, layers=1)
    recommender = Recommender.load(model, catalog, kv_memory_gib=0.00002)
    sentence, answer, too_wide = answers(recommender, [Question([1] * 20, 25), Question([1], 1), Question([1] * 20, 1, beam_width=300)])
    assert sentence == str(batch.RequestTooLarge(recommender.engine, 50))
    assert "raise --max-beam-width" in too_wide
    assert len({item.rank for item in answer.items}) == 1


def test_a_list_that_the_model_fails_on_gets_a_sentence(tmp_path: Path):
    catalog = random_catalog(items=30, depth=2, codes=5)
    model = save_random_model(tmp_path / "model", catalog, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    damage(model, model, [tokenizer.convert_tokens_to_ids(catalog.identifier(7)[-1])])
    recommender = Recommender.load(model, catalog, kv_memory_gib=0.01)
    sound = next(item for item in range(30) if catalog.identifier(item)[-1] != catalog.identifier(7)[-1])
    first, sentence, last = answers(recommender, [Question([sound], 3), Question([sound, 7], 3), Question([sound], 3)])
    assert sentence.startswith("The model's scores were not finite (NaN or infinite), so there is no list")
    assert [item.item for item in first.items] == [item.item for item in last.items]


def test_too_little_memory_for_a_forward_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = random_catalog(items=30, depth=2, codes=5)
    recommender = Recommender.load(save_random_model(tmp_path / "model", catalog, layers=1), catalog, kv_memory_gib=0.01)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(recommender.engine.target, "score", full)
    with pytest.raises(SetupError, match=r"^There is too little memory for the models, .*: lower --kv-memory-gib \(\"CUDA out of memory\."):
        list(answers(recommender, [Question([1], 3)]))


DEFAULTS = Defaults(k=3, beam_width=None, exclude=(), exclude_history=True)
GUMBEL = SearchRule(Verification.GUMBEL)


def asked(**line: object) -> Question | str:
    read = read_line(json.dumps(line).encode())
    return read if isinstance(read, str) else make_question(random_catalog(items=20), read, DEFAULTS)


def test_a_line_brings_events_behaviours_profile_and_context():
    question = asked(
        user_id=7,
        history=["item-1", {"item_id": "item-2", "kind": "watch", "value": 3, "timestamp": 9, "attributes": {"device": "tv"}}],
        behaviours={"buy": ["item-4", {"item_id": "item-5"}]},
        profile={"age": 34, "genres": ["war"]},
        context={"query": "rain"},
    )
    assert isinstance(question, Question)
    events = [UserEvent(1), UserEvent(2, "watch", 3.0, 9.0, {"device": "tv"})]
    behaviours = {"buy": [UserEvent(4, "buy"), UserEvent(5, "buy")]}
    assert question.history == UserState(events, behaviours, {"age": 34, "genres": ["war"]}, {"query": "rain"}, "7")
    assert question.excluded == [1, 2, 4, 5]
    for nothing in ({"history": []}, {"history": None}, {}):
        alone = asked(**nothing, context={"query": "rain"})
        assert isinstance(alone, Question)
        assert alone.history == UserState([], context={"query": "rain"})


@pytest.mark.parametrize(
    ("given", "line", "widths"),
    [
        ({"beam_width": 9}, {}, (9, None)),
        ({"beam_width": 9}, {"k": 9}, (9, None)),
        ({"beam_width": 9}, {"k": 10}, (None, None)),
        ({"beam_width": 9}, {"k": 2, "beam_width": 4}, (4, None)),
        ({"beam_width": 9}, {"beam_widths": [4]}, (None, [4])),
        ({"beam_widths": [4, 9]}, {"k": 9}, (None, [4, 9])),
        ({"beam_widths": [9, 4]}, {"k": 5}, (None, None)),
        ({"beam_widths": [4, 9], "rule": GUMBEL}, {"k": 5}, (None, None)),
        ({"beam_widths": [4, 9], "rule": GUMBEL}, {"k": 4}, (None, [4, 9])),
        ({"beam_widths": [4, 9]}, {"k": 2, "beam_width": 7}, (7, None)),
        ({}, {"k": 2}, (None, None)),
    ],
)
def test_the_widths_of_all_lines_are_those_of_a_line_with_a_k_that_fits_in_them(
    given: dict[str, object], line: dict[str, object], widths: tuple[object, object]
) -> None:
    question = make_question(random_catalog(items=20), UserLine(["item-1"], **line), replace(DEFAULTS, **given))
    assert isinstance(question, Question)
    assert (question.beam_width, question.beam_widths) == widths


@pytest.mark.parametrize(
    "told",
    [{"history": ["item-1"]}, {"history": ["item-1"], "context": {"query": "rain"}}, {"behaviours": {"buy": ["item-4"]}}],
)
def test_a_null_is_a_field_that_is_left_out(told: dict[str, object]):
    """As pandas writes a column of which a user has nothing."""
    fields = ("history", "user_id", "behaviours", "profile", "context", "k", "beam_width", "beam_widths", "exclude")
    question = asked(**told)
    assert isinstance(question, Question)
    assert asked(**(dict.fromkeys(fields) | told)) == question


def test_a_byte_order_mark_is_no_part_of_a_line():
    """Windows begins files with one, and files that are joined have it in the middle."""
    line = b'{"history": ["item-1"]}'
    assert read_line(b"\xef\xbb\xbf" + line) == read_line(line) == UserLine(["item-1"])


def test_a_line_of_ids_may_be_longer_than_a_request():
    question = asked(history=["item-1"] * 10_001)
    assert isinstance(question, Question)
    assert question.history == UserState([UserEvent(1)] * 10_001)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"history": [], "behaviours": {}}, "The history is empty: recommendations need at least one item."),
        (
            {"user_id": 7, "profile": {"age": 3}},
            "The line has no history: give one, or behaviours or a context of which a prompt can be made.",
        ),
        ({"behaviours": {"buy": ["gone"]}}, "The catalog has no item 'gone', which behaviours names."),
        ({"history": ["a", "b"], "exclude": ["c"]}, "The catalog has none of the 2 items that history names, such as 'a'."),
        ({"history": [{"value": 3}]}, "The field 'history[0].item_id' is missing."),
        (
            {"history": ["item-1"], "context": {"a": {"b": 1}}},
            "context can't hold 'a': its value is no text, number, boolean or list of these.",
        ),
        (
            {"history": ["item-1"], "behaviours": {"buy": [{"item_id": "item-1", "value": "x"}]}},
            "behaviours.buy[0].value must be a valid number.",
        ),
    ],
)
def test_a_line_that_can_not_be_used_gets_a_sentence(line: dict[str, object], sentence: str):
    assert asked(**line) == sentence


def test_items_that_the_catalog_does_not_have_are_passed_over_and_told_or_refused():
    line = UserLine(["item-1", "gone"], exclude=["lost", 3])
    question = make_question(random_catalog(items=20), line, replace(DEFAULTS, exclude=["item-2"]))
    assert isinstance(question, Question)
    assert question.history == UserState([UserEvent(1)])
    assert question.excluded == [1, 2]
    assert question.note == (
        "The catalog has no item 'gone', which history names: it is passed over. "
        "The catalog does not have 2 items that exclude names, such as 'lost': they are passed over."
    )
    refused = make_question(random_catalog(items=20), line, replace(DEFAULTS, strict_ids=True))
    assert refused == "The catalog has no item 'gone', which history names."


def test_what_a_line_brings_is_in_the_prompt(tmp_path: Path):
    catalog = random_catalog(items=20, depth=2, codes=5)
    model = save_random_model(tmp_path / "model", catalog, layers=1)
    template = "{{ context.code }}{{ user.codes | join }}{{ behaviours.buy | join }}{{ history | join }}"
    prompt_of({"format": "jinja", "template": template, "behaviours": {"buy": {}}, "max_tokens": 64}).save(model)
    recommender = Recommender.load(model, catalog, kv_memory_gib=0.01)
    code = catalog.tokens[0]
    lines = [
        {"history": ["item-1"], "behaviours": {"buy": ["item-2"]}, "context": {"code": code}, "profile": {"codes": [code, code]}},
        {"history": [], "behaviours": {"buy": []}, "context": {"code": code}, "profile": {"codes": []}},
        {"history": ["item-1"]},
    ]
    questions = [make_question(catalog, read_line(json.dumps(line).encode()), DEFAULTS) for line in lines]
    told, bare, missing = answers(recommender, questions)
    recommender.close()
    special = recommender.prompts.build(questions[1].history).tolist()
    assert told.usage.prompt_tokens == len(special) + 2 + 2 + 2
    assert bare.usage.prompt_tokens == len(special)
    assert missing == "The template in prompt.json, line 1: there is no context.code, and the template has no default for it."
