"""Questions that can and can't be answered share one engine, and answers keep their order."""

from pathlib import Path

from transformers import AutoTokenizer

from server.offline.questions import Question, answers
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


def test_a_list_that_the_engine_cannot_hold_gets_a_sentence(tmp_path: Path):
    catalog = random_catalog(items=30, depth=3, codes=5)
    model = save_random_model(tmp_path / "model", catalog, layers=1)
    recommender = Recommender.load(model, catalog, kv_memory_gib=0.00002)
    sentence, answer = answers(recommender, [Question([1] * 20, 25), Question([1], 1)])
    slots = recommender.engine.total_slots
    assert sentence == f"This list needs more than the engine's {slots} KV slots: ask for less, or raise --kv-memory-gib."
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
