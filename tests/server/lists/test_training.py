"""A training sample and a request for the same user have the same prompt, token for token: with a list, with a template and with a chat."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drafting.alignment.data.loading import load_split
from drafting.alignment.data.samples import IGNORED_LABEL, SampleSet
from drafting.alignment.data.windows import prefix_windows
from drafting.catalog.builder import CatalogBuilder
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from server.histories import Event, Retention
from server.histories.memory import MemoryHistoryStore
from server.lists.users import known_user
from server.schemas.recommendations import RecommendationRequest
from server.schemas.users import EventBody
from tests.prompt_tokenizers import KINDS

ITEMS, USERS = 30, 9
CATALOG_BUILDER = CatalogBuilder()
CATALOG_BUILDER.add(
    [f"i{item}" for item in range(ITEMS)],
    [[f"<a_{item % 6}>", f"<b_{item // 6}>"] for item in range(ITEMS)],
    {"title": [f"The {item}th, again" for item in range(ITEMS)], "brand": [None if item % 2 else f"on{item % 3}" for item in range(ITEMS)]},
)
CATALOG = CATALOG_BUILDER.catalog()
TEMPLATE = (
    "<user {{ user_id | bucket(7) }}> the reader, {{ user.age | default('any age') }}, of {{ user.likes | default([]) | join(', ') }}: "
    "{% for item in history %}{{ item.index }}. {{ item }} {{ item.title }} {{ item.kind }} {{ item.value | default('-') }} "
    "{{ item.event.price | default('-') }} {{ item.attributes.brand | default('-') }} at {{ item.time | int }}, {% endfor %}"
    "bought {{ behaviours.buy | join(', ') }}; {{ context.query | default('anything') }} {{ context.tags | default([]) | join('/') }}"
)
EVENT_FIELDS = ("timestamp", "kind", "value", "attributes")
WINDOWS = {"history": {"max_items": 4}, "behaviours": {"buy": {"max_items": 3, "order": "newest"}}}
FORMS: dict[str, dict[str, Any]] = {
    "list": {"template": "the {history} then", "separator": ", ", "max_items": 4},
    "template": {"format": "jinja", "template": TEMPLATE, **WINDOWS},
    "chat": {"chat": True, "messages": [{"role": "user", "content": TEMPLATE}], "after": " on", **WINDOWS},
}
CHAT = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"


def users() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of interactions, of which some lack a value, an attribute or a context, and of profiles."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for user in range(USERS):
        for time in range(3 + user):
            line: dict[str, Any] = {"user": user, "item": f"i{rng.integers(ITEMS)}", "timestamp": 1_700_000_000 + time}
            line["kind"] = str(rng.choice(["watch", "watch", "buy"]))
            line |= {"value": int(rng.integers(6))} if rng.random() < 0.7 else {}
            line |= {"attributes": {"price": [5, 5.0, 2.5][rng.integers(3)], "gift": True}} if rng.random() < 0.7 else {}
            line |= {"context": {"query": "an other, on it", "tags": ["a", 1]}} if rng.random() < 0.5 else {}
            lines.append(line)
    return lines, [{"user": user, "age": 20 + user, "likes": ["tea", "it"]} for user in range(0, USERS, 2)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["first word marked", "byte level"])
def test_a_sample_and_a_request_have_the_same_prompt(tmp_path: Path, form: str, kind: str) -> None:
    lines, profiles = users()
    for name, rows in (("interactions", lines), ("profiles", profiles)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = KINDS[kind](CATALOG.tokens)
    tokenizer.chat_template = CHAT
    builder = PromptBuilder(prompt_of(FORMS[form]), PromptTokenizer.of(tokenizer), CATALOG)
    split = load_split(tmp_path, CATALOG)
    whole = split.train.followed_by(split.valid).followed_by(split.test)
    identifiers = CATALOG.token_ids(tokenizer.get_vocab())
    samples = SampleSet(whole, prefix_windows(whole, builder.max_items + 1, asked=form != "list"), builder, identifiers, 0)
    lengths = []
    for index in range(len(samples)):
        asked, batch = int(samples.windows.last[index]), samples[index]
        trained = batch["input_ids"][batch["labels"] == IGNORED_LABEL].tolist()
        user, known = int(samples.windows.owners[index]), asked - int(whole.offsets[samples.windows.owners[index]])
        served = request(
            [line for line in lines if line["user"] == user], known, [each for each in profiles if each["user"] == user], builder
        )
        assert trained == builder.build(served).tolist()
        lengths.append(len(trained) + identifiers.shape[1])
    assert samples.lengths.tolist() == lengths or form == "list"
    assert (len(samples) > len(lines) - USERS) is (form != "list"), "a context is enough to predict a first item from"


def request(lines: list[dict[str, Any]], known: int, profiles: list[dict[str, Any]], builder: PromptBuilder) -> Any:
    """What a request of a user knows who has stored the first of these events, and asks for the next."""

    async def read() -> Any:
        store = MemoryHistoryStore(Retention())
        user = str(lines[0]["user"])
        given = [
            EventBody.model_validate({"item_id": line["item"], **{name: line[name] for name in EVENT_FIELDS if name in line}})
            for line in lines[:known]
        ]
        events = [Event(each.item_id, float(each.timestamp or 0), None, each.kind, each.value, each.attributes) for each in given]
        if events:
            await store.append_many({user: events})
        for profile in profiles:
            await store.put_profile(user, {name: value for name, value in profile.items() if name != "user"})
        body = RecommendationRequest.model_validate({"user_id": user, "context": lines[known].get("context", {})})
        limits = builder.max_items + 1, {kind: most + 1 for kind, most in builder.kinds.items()}
        return known_user(CATALOG, body, *limits, await store.read_user(user, None), user).state

    return asyncio.run(read())
