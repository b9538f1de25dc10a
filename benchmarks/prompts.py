"""What a prompt costs: building it in the API process, and taking it in on the engine's thread.

Invariant: times are those of the thread's processor, so a crowded machine changes them little; every prompt is of another user, and the
tokenizer, titles and codes are made with a seed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from server.messages import ToEngine
from server.submit import Submit
from verification.request import BeamRequest

ITEMS, LEVELS, CODES, WORDS = 5_000, 4, 256, 8_000
WARM_UP = 300
TEMPLATES = {
    "codes": "Below is an instruction. The user has met {{ history | join(', ') }} in this order. What comes next?\n\n### Response:",
    "titles": "A reader of {{ user.age | default(30) }} years.\n{% for item in history %}\n{{ item.index }}. {{ item.title }}: {{ item }}\n"
    "{% endfor %}\nWhat comes next?\n",
}


@dataclass(frozen=True)
class PromptCost:
    """Milliseconds of a thread's processor for one request, as p50 and p99.

    Attributes:
        tokens: of a prompt, on average.
        first: building a prompt whose user has not asked before.
        again: building that of a user who has met one more item since their last.
        engine: taking it in on the engine's thread.
    """

    name: str
    tokens: int
    first: tuple[float, float]
    again: tuple[float, float]
    engine: tuple[float, float]


def measure(name: str, tokens: int, requests: int, catalog_items: int = ITEMS) -> PromptCost:
    """The cost of prompts of about so many tokens that a template of `TEMPLATES` writes."""
    rng = np.random.default_rng(0)
    catalog, tokenizer = _catalog(rng, catalog_items)
    warm_up = min(WARM_UP, catalog_items)
    limits = {"max_items": 10_000, "min_items": 10_000}
    builder = PromptBuilder(prompt_of({"format": "jinja", "template": TEMPLATES[name], "history": limits}), tokenizer, catalog)
    one, two = (len(builder.build(list(range(items)))) for items in (1, 2))
    items = max(1, (tokens - one) // (two - one) + 1)
    histories = rng.integers(catalog_items, size=(warm_up + requests, items + 1)).tolist()
    users = [UserState([UserEvent(item) for item in history], user_id=str(user)) for user, history in enumerate(histories)]
    before = [replace(user, events=user.events[:-1]) for user in users]
    # Tokenizers remember words, and a server has met most of them.
    for user in before[:warm_up]:
        builder.build(user)
    prompts, first = _timed([partial(builder.build, user) for user in before[warm_up:]])
    _, again = _timed([partial(builder.build, user) for user in users[warm_up:]])
    now = time.monotonic()
    sent = [
        msgspec.msgpack.encode(Submit(str(user), [], 10, 10, [], now, now, prompt=prompt.astype(np.int32).tobytes()))
        for user, prompt in enumerate(prompts)
    ]
    decoder = msgspec.msgpack.Decoder(ToEngine)
    _, engine = _timed([partial(_taken, decoder, message) for message in sent])
    return PromptCost(name, round(float(np.mean([len(prompt) for prompt in prompts]))), first, again, engine)


def table(costs: Sequence[PromptCost]) -> str:
    """The costs as lines of a terminal."""
    lines = ["template  tokens  first ms (p50, p99)  one item more  engine's thread"]
    for cost in costs:
        numbers = "   ".join(f"{middle:7.3f} {late:7.3f}" for middle, late in (cost.first, cost.again, cost.engine))
        lines.append(f"{cost.name:8s} {cost.tokens:7d}  {numbers}")
    return "\n".join(lines)


def _taken(decoder: msgspec.msgpack.Decoder[Any], message: bytes) -> BeamRequest:
    submit = decoder.decode(message)
    prompt = np.frombuffer(submit.prompt, np.int32).astype(np.int64)
    return BeamRequest(submit.request_id, prompt, submit.k, submit.beam_width, np.empty(0, np.int64))


def _timed(calls: list[Callable[[], Any]]) -> tuple[list[Any], tuple[float, float]]:
    results, seconds = [], []
    for call in calls:
        started = time.thread_time()
        results.append(call())
        seconds.append(time.thread_time() - started)
    middle, late = np.percentile(np.array(seconds) * 1000, [50, 99]).tolist()
    return results, (middle, late)


def _catalog(rng: np.random.Generator, items: int) -> tuple[Catalog, PromptTokenizer]:
    words_of_titles = min(WORDS, 2 * items)
    letters = list("etaoinshrdlucmfwypvbgkjqxz")
    words = ["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(words_of_titles)]
    often = 1 / np.arange(1, words_of_titles + 1)
    titles = [" ".join(rng.choice(words, size=rng.integers(2, 9), p=often / often.sum())).capitalize() for _ in range(items)]
    rows = [[f"<{'abcd'[level]}_{code}>" for level, code in enumerate(row)] for row in rng.integers(CODES, size=(items, LEVELS)).tolist()]
    catalog = CatalogBuilder()
    catalog.add([str(item) for item in range(items)], rows, {"title": titles})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters_of_bytes = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=20_000, special_tokens=["<s>"], initial_alphabet=letters_of_bytes, show_progress=False)
    tokenizer.train_from_iterator([*titles, *TEMPLATES.values()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    found = catalog.catalog()
    tokenizer.add_tokens([AddedToken(code, normalized=False) for code in found.tokens])
    return found, PromptTokenizer(tokenizer, 0)
