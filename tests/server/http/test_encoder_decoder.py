"""A real server with a T5 target and a T5 draft: HTTP's lists are the recommender's, and an encoded history is read again."""

from pathlib import Path

from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.catalog.catalog import Catalog
from tests.server.forked_server import ForkedServer
from tests.speculation import noisy_copy
from tests.t5_models import save_t5_model
from verification.recommender import Recommender

USER, HISTORY, K = "ann", [3, 14, 15], 6


def test_lists_over_http(catalog: Catalog, catalog_file: Path, tmp_path: Path) -> None:
    target = save_t5_model(tmp_path / "target", catalog, max_items=5)
    draft = noisy_copy(target, tmp_path / "draft", 0.1)
    alone = Recommender.load(target, catalog, threads=1, kv_memory_gib=0.01)
    (expected,) = alone.recommend([HISTORY], K, SERVED_BEAM_WIDTH)
    (other,) = alone.recommend([HISTORY[:2]], K, SERVED_BEAM_WIDTH, excluded_items=[HISTORY[2:]])
    alone.close()
    flags = ["--target", target, "--draft", draft, "--plan", "auto", "--catalog", catalog_file, "--kv-memory-gib", "0.01"]
    with ForkedServer(tmp_path, *map(str, flags), "--histories", "memory://", "--timeout-ms", "20000") as server:
        server.wait_until_ready()
        events = {"events": [{"item_id": f"item-{item}", "timestamp": item} for item in HISTORY]}
        assert server.client.post(f"/v1/users/{USER}/events", json=events).status_code == 200
        answers = [server.recommend(user_id=USER, k=K, exclude_history=False).json() for _ in range(2)]
        for answer in answers:
            assert [line["item_id"] for line in answer["items"]] == [f"item-{item.item}" for item in expected.items]
        tokens = len(HISTORY) * catalog.identifier_length
        assert [answer["usage"]["prompt_tokens"] for answer in answers] == [tokens + 1] * 2
        assert [answer["usage"]["cached_tokens"] for answer in answers] == [0, tokens]
        answer = server.recommend(history=[f"item-{item}" for item in HISTORY[:2]], k=K, exclude=[f"item-{HISTORY[2]}"]).json()
        assert [line["item_id"] for line in answer["items"]] == [f"item-{item.item}" for item in other.items]
