"""Clients in a closed loop: everyone is answered once, in order, and nobody stays behind."""

import itertools
from pathlib import Path

import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.systems.closed_loop import closed_loop
from tests.models import random_catalog, save_random_model
from verification.recommender import Recommender


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    catalog = random_catalog(items=100)
    folder = save_random_model(tmp_path_factory.mktemp("model"), catalog, hidden=32, layers=1)
    return Recommender.load(Path(folder), catalog, kv_memory_gib=0.01)


def test_one_client_pays_for_all_tokens_of_its_forwards(recommender: Recommender):
    requests = (recommender.request(str(number), [number, 7], 3, 3) for number in range(3))
    answers = closed_loop(recommender.engine, requests, counted=3, clients=1)
    assert [answer.result.request_id for answer in answers] == ["0", "1", "2"]
    # What is not known of a prompt (its last token is the root of the tree), then three nodes at each of the two inner levels.
    for usage, tokens in ((answer.result.usage, answer.tokens) for answer in answers):
        assert tokens == usage.prompt_tokens - usage.cached_tokens + 3 + 3
    assert recommender.engine.used_slots == 0


def test_company_changes_no_list_and_is_not_counted(recommender: Recommender):
    histories = [[number, 3 * number] for number in range(5)]
    alone = [closed_loop(recommender.engine, [recommender.request("", history, 4)], 1, 1)[0] for history in histories]
    company = enumerate(itertools.chain(histories, itertools.cycle(histories)))
    together = closed_loop(recommender.engine, (recommender.request(str(number), history, 4) for number, history in company), 5, 3)
    assert [[item.item for item in answer.result.items] for answer in together] == [
        [item.item for item in answer.result.items] for answer in alone
    ]
    assert recommender.engine.running == 0
    assert recommender.engine.used_slots == 0


def test_more_clients_than_there_is_memory_for_are_told(recommender: Recommender):
    requests = (recommender.request(str(number), [number % 100, 7], 100) for number in range(1000))
    with pytest.raises(BenchmarkError, match="too little for 1000 at once, each a list of 100: ask for fewer at a time"):
        closed_loop(recommender.engine, requests, 1, 1000)
    for number in range(1000):
        recommender.engine.cancel(str(number))
    assert recommender.engine.used_slots == 0
