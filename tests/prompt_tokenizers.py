"""Tokenizers of every kind that models have, small, with the codes of a catalog added to them."""

from collections.abc import Callable, Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# Pairs that every kind merges, so that what stands beside a text matters to its tokens.
PAIRS = ("he", "re", "th", "an", "in", "er", "on", "it", "ti", ", ", " t", " a", "▁t", "▁a", "▁,", "▁n", "▁c")
LETTERS = [chr(number) for number in range(32, 127)] + list("\n▁éß日本🎬")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def finished(tokenizer: Tokenizer, codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of transformers that begins texts with `<s>`, with the codes added in a way."""
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    tokenizer.add_tokens([AddedToken(code, **{"normalized": False, **flags}) for code in codes])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def merging() -> Tokenizer:
    """BPE over letters and some pairs of them; the words of a text are not split off."""
    words = dict.fromkeys((*SPECIAL, *LETTERS, *PAIRS))
    merges = [(pair[0], pair[1]) for pair in PAIRS]
    return Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges, unk_token="<unk>"))


def first_word_marked(codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """As LlamaTokenizer(legacy=False): the beginning of a text is marked as the beginning of a word."""
    tokenizer = merging()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return finished(tokenizer, codes, **flags)


def every_part_marked(codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """As older Llama tokenizer.json files: what stands between added tokens is marked as the beginning of a word."""
    tokenizer = merging()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return finished(tokenizer, codes, **flags)


def byte_level(codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3 and Qwen: BPE over bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(pair[0], pair[1]) for pair in ("he", "re", "th", "Ġt", "Ġa", "an", "er", ",Ġ")]
    words = dict.fromkeys((*SPECIAL, *alphabet, *map("".join, pairs)))
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return finished(tokenizer, codes, **flags)


def unigram(codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """As T5: the likeliest pieces, with letters made alike before."""
    words = [(word, -float(4 - len(word))) for word in dict.fromkeys((*SPECIAL, *LETTERS, *PAIRS, "▁the", "▁and"))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return finished(tokenizer, codes, **flags)


def words(codes: Iterable[str], **flags: bool) -> PreTrainedTokenizerFast:
    """A word for each code, none of which is an added token, and a word for each letter."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys((*SPECIAL, *LETTERS, *codes)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<[^<>]*>|[^<]"), "isolated")
    return finished(tokenizer, (), **flags)


KINDS: dict[str, Callable[..., PreTrainedTokenizerFast]] = {
    "first word marked": first_word_marked,
    "every part marked": every_part_marked,
    "byte level": byte_level,
    "unigram": unigram,
    "words": words,
}
