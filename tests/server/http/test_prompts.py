"""A real server whose prompts are written by a template: lists are the recommender's for the same user, whatever the request brings."""

from pathlib import Path

from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.catalog.catalog import Catalog
from drafting.prompts.loading import prompt_of
from drafting.prompts.user_state import UserEvent, UserState
from tests.models import save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import alike, assert_problem
from verification.recommender import Recommender

K = 6
WORDS = ("<a_0>", "<b_1>", "<c_2>")
TEMPLATE = (
    "{{ history | join }}{% for item in behaviours.buy %}<a_0>{{ item }}{% endfor %}"
    "{% if user.age | default(0) > 30 %}<b_1>{% endif %}{{ '<c_2>' * context.clicks }}"
)

PLACE, FIELD = "The template in prompt.json", "context can't hold 'clicks': its value"
UNUSABLE = "it can't be rendered with a value that is known of this user"
HOSTILE = (
    (10_000, f"{PLACE}: it writes more than 13,200 letters."),
    (10**9, f"{PLACE}, line 1: it makes a text or a list of more than 1,000,000 letters or entries."),
    ("x", f"{PLACE}, line 1: {UNUSABLE}."),
    ([1, 2], f"{PLACE}, line 1: {UNUSABLE}."),
    (1e300, f"{FIELD} is not finite, or beyond what every JSON parser reads alike (2^53)."),
    ({"a": 1}, f"{FIELD} is no text, number, boolean or list of these."),
    ("x" * 10**6, f"{FIELD} has 1,000,000 characters, and 2,000 are possible."),
)


def test_lists_are_those_of_the_prompts_that_requests_describe(catalog: Catalog, catalog_file: Path, tmp_path: Path) -> None:
    target = save_random_model(tmp_path / "target", catalog)
    prompt_of({"format": "jinja", "template": TEMPLATE, "behaviours": {"buy": {"max_items": 2}}, "max_tokens": 100}).save(target)
    events = [UserEvent(item, "buy" if item % 2 else "watch", time=float(item)) for item in range(40, 46)]
    users = [
        UserState(events, profile={"age": 31}, context={"clicks": 2}),
        UserState(events, profile={"age": 31}, context={"clicks": 0}),
        UserState(events, {"buy": [UserEvent(3)]}, {"age": 7}, {"clicks": 1}),
    ]
    alone = Recommender.load(target, catalog, threads=1, kv_memory_gib=0.01)
    expected = [[f"item-{item.item}" for item in result.items] for result in alone.recommend(users, K, SERVED_BEAM_WIDTH)]
    tokens = [len(alone.prompts.build(user)) for user in users]
    alone.close()
    assert len({tuple(items) for items in expected}) == 3
    flags = ["--target", target, "--catalog", catalog_file, "--kv-memory-gib", "0.01", "--histories", "memory://", "--timeout-ms", "20000"]
    with ForkedServer(tmp_path, *map(str, flags)) as server:
        server.wait_until_ready()
        stored = [{"item_id": f"item-{event.item}", "kind": event.kind, "timestamp": event.time} for event in events]
        assert server.client.post("/v1/users/ann/events", json={"events": stored}).status_code == 200
        assert server.client.put("/v1/users/ann/profile", json={"age": 31}).status_code < 300
        asked = [
            {"context": {"clicks": 2}},
            {"context": {"clicks": 0}},
            {"context": {"clicks": 1}, "profile": {"age": 7}, "behaviours": {"buy": ["item-3"]}},
        ]
        for body, items, length in zip(asked, expected, tokens, strict=True):
            answer = server.recommend(user_id="ann", k=K, exclude_history=False, **body).json()
            assert [line["item_id"] for line in answer["items"]] == items
            assert answer["usage"]["prompt_tokens"] == length
            assert "note" not in answer
        again = server.recommend(user_id="ann", k=K, exclude_history=False, **asked[2]).json()
        assert again["usage"]["cached_tokens"] == tokens[2] - 1
        missing = server.recommend(user_id="ann", k=K)
        assert_problem(
            missing, 422, "The template in prompt.json, line 1: there is no context.clicks, and the template has no default for it."
        )
        assert server.recommend(user_id="ann", k=K, context={"clicks": 1}).status_code == 200
        # The template is content with a context alone, be the user known or not.
        alone_answer = server.recommend(k=K, context={"clicks": 1}).json()
        assert server.recommend(user_id="nobody", k=K, context={"clicks": 1}).json()["items"] == alike(alone_answer["items"])
        popular = server.recommend(user_id="nobody", k=4).json()
        ranks = {line["item_id"]: line["rank"] for line in popular["items"]}
        # Other items share some of their identifiers.
        assert (popular["source"], [ranks[f"item-{number}"] for number in range(40, 44)]) == ("popular", [1, 2, 3, 4])
        liked = server.recommend(k=K, context={"clicks": 1}, behaviours={"like": ["item-1"]}).json()
        assert liked["note"] == "The model's prompt does not read behaviours other than buy."
        assert liked["items"] == alike(alone_answer["items"])
        for clicks, sentence in HOSTILE:
            refused = server.recommend(user_id="ann", k=K, context={"clicks": clicks})
            assert_problem(refused, 422, sentence)
        body = b'{"user_id": "ann", "k": 6, "context": {"clicks": "\\ud800"}}'
        halved = server.client.post("/v1/recommendations", content=body, headers={"content-type": "application/json"})
        assert_problem(halved, 422, f"{FIELD} holds text that UTF-8 can't carry.")
        again = server.recommend(user_id="ann", k=K, exclude_history=False, **asked[0]).json()
        assert [line["item_id"] for line in again["items"]] == expected[0]
        assert server.client.get("/health").status_code == 200
