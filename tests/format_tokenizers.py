"""Tokenizers built like those of published recommenders: classes of transformers, trained here on a few sentences, codes added as they do.

All of these projects call `tokenizer.add_tokens` with the codes as plain texts, which makes added tokens that are `normalized`.
"""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer, T5Tokenizer

SENTENCES = (
    "### Instruction:\nThese are the things that a customer bought, oldest first. Which item is next?\n\n### Response:\n",
    "Watched: 1. A tent for two, 2. The coffee grinder\nBought: a lamp. The customer searches for the light in the evening.",
    "user\nassistant\nsystem\nYou recommend videos and products. Age: 25-34, interests: hiking, coffee",
)
LETTERS = [chr(number) for number in range(33, 127)] + list("\né")
BYTES = [f"<0x{number:02X}>" for number in range(256)]
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Written in the manner of Qwen 3: a turn for each message, and without thinking an empty block of thoughts before the answer.
CHAT = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""


def learnt(model: Any, before: pre_tokenizers.PreTokenizer, trainer: Any) -> dict[str, Any]:
    """The vocabulary that a trainer makes of the sentences, as `tokenizer.json` has it."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = before
    tokenizer.train_from_iterator(SENTENCES, trainer)
    described: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return described


def pairs(before: pre_tokenizers.PreTokenizer, special: Iterable[str], letters: Iterable[str]) -> dict[str, Any]:
    """Vocabulary and merges of a BPE."""
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=list(special), initial_alphabet=list(letters), show_progress=False)
    described = learnt(models.BPE(), before, trainer)
    return {"vocab": described["vocab"], "merges": [tuple(pair) for pair in described["merges"]]}


def llama_2(codes: Iterable[str], *, legacy: bool) -> PreTrainedTokenizerBase:
    """SentencePiece BPE: Llama 2, by `legacy` as transformers read it before 4.31, or as it reads it by default today."""
    described = pairs(pre_tokenizers.Metaspace(prepend_scheme="first", split=True), ("<unk>", "<s>", "</s>"), LETTERS)
    vocab = described["vocab"] | {byte: len(described["vocab"]) + number for number, byte in enumerate(BYTES)}
    tokenizer = LlamaTokenizer(vocab=vocab, merges=described["merges"], legacy=legacy)
    tokenizer.add_tokens(list(codes))
    return tokenizer


def llama_3(codes: Iterable[str]) -> PreTrainedTokenizerBase:
    """BPE over bytes; the post-processor begins every text with `<|begin_of_text|>`."""
    special = ("<|begin_of_text|>", "<|end_of_text|>")
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    before = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = Tokenizer(models.BPE(**pairs(before, special, sorted(pre_tokenizers.ByteLevel.alphabet())), ignore_merges=True))
    tokenizer.pre_tokenizer = before
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1])
    fast.add_tokens(list(codes))
    return fast


def qwen(codes: Iterable[str], special: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """BPE over bytes, with chats; nothing begins or ends a text."""
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    before = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Qwen2Tokenizer(**pairs(before, chat, sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.add_special_tokens({"additional_special_tokens": [*chat[1:], *special]})
    tokenizer.add_tokens(["<think>", "</think>", *codes])
    tokenizer.chat_template = CHAT
    return tokenizer


def t5(codes: Iterable[str]) -> PreTrainedTokenizerBase:
    """Unigram; `</s>` ends every text."""
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=special, unk_token="<unk>", initial_alphabet=LETTERS, show_progress=False
    )
    pieces = learnt(models.Unigram(), pre_tokenizers.Metaspace(), trainer)["vocab"]
    tokenizer = T5Tokenizer(vocab=[tuple(piece) for piece in pieces], extra_ids=5)
    tokenizer.add_tokens(list(codes))
    return tokenizer
