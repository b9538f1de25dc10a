"""The formats of docs/prompt-formats.md with tokenizers, catalogs and users, and an oracle of their texts that is plain Jinja."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import msgspec
import numpy as np
from transformers import PreTrainedTokenizerBase

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.user_state import UserEvent, UserState
from drafting.prompts.window import Window
from tests.format_tokenizers import llama_2, llama_3, qwen, t5

PAGE = Path(__file__).parents[1] / "docs" / "prompt-formats.md"
_FENCE = r"```{}\n(.*?)\n```"
ITEMS = 80
# The page's items first; some have none.
TITLES = (
    "A tent for two",
    'Café "Noir", 1 kg',
    None,
    "The lamp",
    "Kid's rain coat",
    "日本 🎬 guide",
    "The <a_1> tape",
    "  spaces  ",
    "1. not 2",
)
PLAIN = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
RNG = np.random.default_rng(0)
RANDOM = RNG.integers(8, size=(ITEMS, 4)).tolist()
EXAMPLE = UserState(
    [
        UserEvent(0, "watch", 41.5),
        UserEvent(1, "buy"),
        UserEvent(2, "watch", 7.0),
        UserEvent(3, "buy"),
        UserEvent(4, "watch", 120.0),
    ],
    profile={"age": "25-34", "interests": ["hiking", "coffee"]},
    context={"query": "a light for the evening"},
)


def catalog(levels: int, form: str = "<{level}_{code}>") -> Catalog:
    """The page's items and others, with titles and categories."""
    rows = [(item % 8, (2 * item + 1) % 8, (3 * item + 2) % 8, item // 3) for item in range(5)] + RANDOM[5:]
    return catalog_of(
        {f"i{item}": [form.format(level="abcd"[level], code=row[level]) for level in range(levels)] for item, row in enumerate(rows)},
        titles={f"i{item}": title for item in range(ITEMS) if (title := TITLES[item % len(TITLES)])},
    )


@dataclass(frozen=True, eq=False)
class Format:
    """One format of the page.

    Attributes:
        heading: of its section.
        tokenizer: makes one with the codes of a catalog.
        has_encoder: True if T5 reads it.
        forms: how the identifiers of the catalog are written, and how many levels they have.
    """

    heading: str
    tokenizer: Callable[[Sequence[str]], PreTrainedTokenizerBase]
    levels: int = 3
    form: str = "<{level}_{code}>"
    has_encoder: bool = False
    contents: dict[str, Any] = field(init=False)
    text: str = field(init=False)

    def __post_init__(self) -> None:
        _, _, section = PAGE.read_text().partition(f"\n## {self.heading}\n")
        found = [re.search(_FENCE.format(kind), section, re.DOTALL) for kind in ("json", "text")]
        object.__setattr__(self, "contents", msgspec.json.decode(found[0][1]))
        object.__setattr__(self, "text", found[1][1])

    @property
    def catalog(self) -> Catalog:
        return catalog(self.levels, self.form)


TAGS = [f"<|{kind}_{end}|>" for kind in ("sid", "prod") for end in ("begin", "end")]
FORMATS = {
    "lc-rec": Format("LC-Rec", partial(llama_2, legacy=False), 4),
    "lc-rec query": Format("LC-Rec, from a query to an item", partial(llama_2, legacy=True), 4),
    "minionerec": Format("MiniOneRec, numbered and with titles", qwen),
    "openonerec": Format("OpenOneRec", partial(qwen, special=TAGS), form="<s_{level}_{code}>"),
    "letter": Format("LETTER", t5, 4, has_encoder=True),
    "titles": Format("Titles only", llama_3),
}


class Item(SimpleNamespace):
    """An item as plain Jinja reads it: a missing field is no field."""

    def __str__(self) -> str:
        return str(self.identifier)


@cache
def compiled(template: str) -> jinja2.Template:
    """A template of plain Jinja."""
    return PLAIN.from_string(template)


def oracle_items(catalog: Catalog, events: Sequence[UserEvent], window: Mapping[str, Any]) -> list[Item]:
    shown = Window(window.get("max_items", 20), window.get("min_items")).of([event.item for event in events])
    kept = list(events[len(events) - len(shown) :])
    items = []
    for index, event in enumerate(kept[::-1] if window.get("order") == "newest" else kept, 1):
        known = {
            "title": catalog.title(event.item),
            "kind": event.kind,
            "value": event.value,
            "time": event.time,
            "attributes": catalog.known_attributes(event.item),
            "event": dict(event.attributes),
            "identifier": "".join(catalog.identifier(event.item)),
            "index": index,
        }
        items.append(Item(**{name: value for name, value in known.items() if value is not None}))
    return items


def oracle_text(contents: Mapping[str, Any], catalog: Catalog, user: UserState, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a user's prompt, of which nothing is cut."""
    declared = contents.get("behaviours", {})
    lists = {kind: user.behaviours.get(kind, [event for event in user.events if event.kind == kind]) for kind in declared}
    values = {
        "history": oracle_items(catalog, user.events, contents.get("history", {})),
        "behaviours": {kind: oracle_items(catalog, events, declared[kind]) for kind, events in lists.items()},
        "user": user.profile,
        "context": user.context,
        "user_id": user.user_id,
    }
    if "template" in contents:
        return compiled(contents["template"]).render(values)
    messages = [{"role": message["role"], "content": compiled(message["content"]).render(values)} for message in contents["messages"]]
    variables = {"add_generation_prompt": contents.get("add_generation_prompt", True), **contents.get("variables", {})}
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **variables)) + contents.get("after", "")


def oracle_ids(contents: Mapping[str, Any], catalog: Catalog, user: UserState, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer makes of the whole text."""
    special = contents.get("add_special_tokens", "template" in contents)
    ids: list[int] = tokenizer(oracle_text(contents, catalog, user, tokenizer), add_special_tokens=special)["input_ids"]
    return ids


def some_users(items: int, count: int, seed: int = 1) -> list[UserState]:
    """Users with few and many events of three kinds, with and without profile."""
    rng = np.random.default_rng(seed)
    users = [EXAMPLE]
    for number in range(count):
        kinds = rng.choice(["watch", "buy", "like"], size=int(rng.integers(1, 40)))
        events = [UserEvent(int(rng.integers(items)), str(kind), float(rng.integers(200)) if number % 2 else None) for kind in kinds]
        profile = {"age": "18-24", "interests": ["tea"]} if number % 3 else {}
        users.append(UserState(events, profile=profile, context={"query": f"lamp {number}"}))
    return users
