"""The field `think` of prompt.json: what it may be, and the tokens that it becomes."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt, prompt_of
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import MOST_TOKENS, ThinkTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from tests.models import random_catalog, save_tokenizer
from tests.prompt_tokenizers import KINDS, byte_level

END = "</think>"


def tokenizer_with(folder: Path, *tokens: str) -> PreTrainedTokenizerFast:
    save_tokenizer(random_catalog(), folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


def test_the_end_and_what_follows_are_the_tokens_of_the_whole_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tmp_path, END, "\n", "<|item_begin|>")
    template = PromptTemplate(think=ThinkTemplate(END, 20, "\n<|item_begin|>"))
    thinking = PromptBuilder(template, PromptTokenizer.of(tokenizer), random_catalog()).thinking
    assert thinking is not None
    assert tokenizer.convert_ids_to_tokens([*thinking.end, *thinking.after]) == [END, "\n", "<|item_begin|>"]
    assert (len(thinking.end), thinking.most_tokens) == (1, 23)
    assert PromptBuilder(PromptTemplate(), PromptTokenizer.of(tokenizer), random_catalog()).thinking is None


def test_an_end_that_melts_into_what_follows_is_refused(tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.of(tokenizer_with(tmp_path, END, f"{END}<a"))
    with pytest.raises(PromptError, match=r"writes think\.end, '</think>', otherwise with '<a_0>' behind it"):
        ThinkTemplate(END, 20, "<a_0>").tokens(tokenizer.encode)


@pytest.mark.parametrize("kind", ["first word marked", "every part marked", "byte level", "unigram"])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(("end", "after"), [(END, "\n<a_0>"), (" then", ": <a_0>"), (".", "<a_0>"), ("\n\n", "the <a_0>")])
def test_the_end_is_what_it_is_behind_a_text(kind: str, added: bool, end: str, after: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing stands before it, it may be another: it would never be found in what the model writes."""
    catalog = random_catalog()
    tokenizer = KINDS[kind]([*catalog.tokens, *([end] if added else [])])
    builder = PromptBuilder(PromptTemplate(think=ThinkTemplate(end, 20, after)), PromptTokenizer.of(tokenizer), catalog)
    assert builder.thinking is not None
    ending = builder.thinking.end.tolist()
    both = [*ending, *builder.thinking.after.tolist()]
    for text in ("the rain", "an era", "a1 2"):
        assert tokenizer(text + end, add_special_tokens=False)["input_ids"][-len(ending) :] == ending
        assert tokenizer(text + end + after, add_special_tokens=False)["input_ids"][-len(both) :] == both
    assert (f"writes think.end, {end!r}, as {len(ending)} tokens" in caplog.text) is (len(ending) > 1)
    assert len(ending) == 1 or not added


def test_what_is_read_is_that_of_the_requests_own_prompt() -> None:
    catalog = random_catalog()
    own = {"template": "{{ context.query }}: {{ history | join }}", "history": {"max_items": 7}}
    form = prompt_of({"format": "jinja", "template": "{{ user.age }} {{ history | join }}", "think": {"end": END, "prompt": own}})
    builder = PromptBuilder(form, PromptTokenizer.of(byte_level([*catalog.tokens, END])), catalog)
    assert builder.reads == builder.reads_of(thinks=False) == {"profile"}
    assert builder.reads_of(thinks=True) == {"context"}
    assert (builder.most_items(thinks=False), builder.most_items(thinks=True), builder.max_items) == (20, 7, 20)


@pytest.mark.parametrize(
    "think",
    [
        *(
            "",
            5,
            [],
            {},
            {"max_tokens": 5},
            {"end": ""},
            {"end": 5},
            {"end": END, "begin": "<think>"},
            {"end": END, "after": None},
            {"end": END, "prompt": {"think": None}},
            {"end": END, "prompt": 5},
        ),
        *({"end": END, "max_tokens": most} for most in (0, -1, 2.5, True, "5", MOST_TOKENS + 1)),
    ],
)
def test_anything_else_is_a_sentence(think: object, tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps({"think": think}))
    with pytest.raises(PromptError, match=r"prompt\.json is not a prompt template: A prompt's think (is an object|has )"):
        load_prompt(tmp_path)


def test_it_is_saved_and_read_back_and_left_out_where_there_is_none(tmp_path: Path) -> None:
    for template in (PromptTemplate(think=ThinkTemplate(END, 20, "\n")), PromptTemplate(max_items=3)):
        template.save(tmp_path)
        assert load_prompt(tmp_path) == template
    assert "think" not in json.loads((tmp_path / "prompt.json").read_text())


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% if enable_thinking %}<think>{% endif %}{% endif %}"
)


def test_a_request_that_thinks_may_have_another_prompt() -> None:
    """As chat models have it: they are asked to think, and their answer does not begin with an item yet."""
    catalog = random_catalog()
    tokenizer = byte_level([*catalog.tokens, END])
    tokenizer.chat_template = CHAT
    form = prompt_of(
        {
            "chat": True,
            "messages": [{"role": "user", "content": "{{ history | join(' ') }}"}],
            "history": {"max_items": 3, "min_items": 3},
            "variables": {"enable_thinking": False},
            "after": "item:",
            "think": {
                "end": END,
                "after": "\nitem:",
                "prompt": {"variables": {"enable_thinking": True}, "after": "\n", "history": {"max_items": 5}},
            },
        }
    )
    builder = PromptBuilder(form, PromptTokenizer.of(tokenizer), catalog)
    history = list(range(5))
    shown = [" ".join("".join(catalog.identifier(item)) for item in items) for items in (history[-3:], history)]
    assert builder.thinking is not None
    for thinks, text in ((False, f"<user>{shown[0]}<answer>item:"), (True, f"<user>{shown[1]}<answer><think>\n")):
        assert builder.build(history, thinks=thinks).tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert builder.max_items == 5


def test_a_first_form_and_one_without_other_fields() -> None:
    catalog = random_catalog()
    tokenizer = byte_level([*catalog.tokens, END])
    for prompt, ending in (({}, ""), ({"template": "{history} hm"}, " hm")):
        template = PromptTemplate(max_items=3, think=ThinkTemplate(END, prompt=prompt))
        builder = PromptBuilder(template, PromptTokenizer.of(tokenizer), catalog)
        text = "".join(catalog.identifier(7))
        assert builder.build([7]).tolist() == tokenizer(text)["input_ids"]
        assert builder.build([7], thinks=True).tolist() == tokenizer(text + ending)["input_ids"]
        assert builder.max_tokens >= len(builder.build([7] * 3, thinks=True))


@pytest.mark.parametrize("fields", [{"titel": "x"}, {"max_items": 0}, {"template": "{items}"}, {"format": "xml"}])
def test_other_fields_that_make_no_prompt_are_refused(fields: dict[str, object]) -> None:
    catalog = random_catalog()
    template = PromptTemplate(think=ThinkTemplate(END, prompt=fields))
    with pytest.raises(PromptError, match=r"^The prompt of requests that think, by think\.prompt in prompt\.json: "):
        PromptBuilder(template, PromptTokenizer.of(byte_level([*catalog.tokens, END])), catalog)
