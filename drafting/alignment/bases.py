"""Bases: models that a training run starts from, with a tokenizer that has a token for every code of the catalog.

Invariant: the tokenizer of every base encodes each catalog token as one token, and the model has an embedding for it, so the trained model
can be served with the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from drafting.alignment.generation_settings import make_writable
from drafting.alignment.own_head import resize_embeddings
from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError, first_line
from drafting.model_files import ENCODER_DECODERS, GENERATION_FILE, has_weights, weights_twice
from drafting.pretrained import LOADING_ERRORS, UnreadableError, load_whole, read_config, read_tokenizer
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm
from drafting.prompts.template import HISTORY, PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer

PAD, BOS, UNK = "<pad>", "<bos>", "<unk>"

# Large enough for a few thousand items, small enough to train on 100,000 interactions on two CPU cores in about a minute.
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}

# About 3.7 million parameters with the paper's 880 codes: small enough to train on Beauty on two CPU cores in a quarter of an hour.
PAPER: dict[str, Any] = SMALL | {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
}

# The same shape, trained by a recipe of its own.
BASE: dict[str, Any] = PAPER

# For sparse data, where most items were met by few: an item has one vector, by which it is read and predicted, as in SASRec (Kang and
# McAuley, 2018), so that it learns from both. Vectors begin at length 1 and are read multiplied, so that they are not drowned by what
# layers add to them.
SPARSE: dict[str, Any] = {
    "model_type": "granite",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 64**-0.5,
    "embedding_multiplier": 64**0.5,
    "attention_multiplier": 32**-0.5,
}

# About 0.1 million parameters: one layer, much cheaper than the target.
DRAFT: dict[str, Any] = SMALL | {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}

# About 0.14 million parameters: a second layer is worth more accepted steps than all else that was tried on drafts.
DRAFT_DEEP: dict[str, Any] = DRAFT | {"intermediate_size": 112, "num_hidden_layers": 2}

# TIGER's encoder and decoder, of about 4.6 million parameters with 880 codes.
TIGER: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 128,
    "d_ff": 1024,
    "d_kv": 64,
    "num_heads": 6,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "feed_forward_proj": "relu",
    "dropout_rate": 0.1,
}
PRESETS = {"small": SMALL, "base": BASE, "sparse": SPARSE, "paper": PAPER, "draft": DRAFT, "draft-deep": DRAFT_DEEP, "t5-scratch": TIGER}


class BaseError(SetupError):
    """A base cannot be trained for this catalog and prompt; the message is a sentence."""


@dataclass(frozen=True)
class Base:
    """A model to be trained.

    Attributes:
        from_scratch: True if the weights are random.
        name: name that the base was requested by.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    from_scratch: bool
    name: str

    @property
    def pad_token_id(self) -> int:
        """The id of padding; 0 if the tokenizer has none, which is safe because padding is neither attended to nor scored."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def unknown_token(self) -> int | None:
        """The token of text that the tokenizer has no tokens for; None if it learnt a language, in which it is a token like others."""
        return self.tokenizer.unk_token_id if self.from_scratch else None

    @property
    def start_token(self) -> int | None:
        """The token with which the decoder of an encoder-decoder model begins; None for a causal model."""
        config = self.model.config
        return int(config.decoder_start_token_id) if config.is_encoder_decoder else None


def load_base(
    name: str,
    catalog: Catalog,
    template: PromptForm,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    more_tokens: Sequence[str] = (),
) -> Base:
    """Load or build a base: a preset, a `config.json` (or a directory with one and no weights), or a model directory.

    Random weights are drawn from torch's global random state: seed it first.

    Args:
        target_tokenizer: for a draft, the tokenizer of its target, which the base must share; None for a target.
        more_tokens: tokens that a target's tokenizer gets beside the catalog's, such as those of users.

    Raises:
        BaseError: there is no such base, what is trained from it can't be saved or served, it is too short for the prompt, its tokenizer
            cannot express the prompt, or its tokens have other ids than the target's.
    """
    config, weights = _find_base(name)
    tokens = tuple(dict.fromkeys((*catalog.tokens, *more_tokens)))
    tokenizer = target_tokenizer or scratch_tokenizer(tokens)
    base = _from_model(weights, tokens) if config is None else _from_config(config, tokenizer, name)
    if target_tokenizer is not None:
        known = base.tokenizer.get_vocab()
        differing = [token for token, number in target_tokenizer.get_vocab().items() if known.get(token) != number]
        if differing:
            raise BaseError(
                f"The base {name} has another vocabulary than the target: {len(differing)} tokens differ, {differing[0]!r} among them. "
                "A draft needs the target's tokens: start from a config, or from a model of the target's family."
            )
        base = replace(base, tokenizer=target_tokenizer)
    elif base.from_scratch and isinstance(template, PromptTemplate) and _unknown(template, tokenizer):
        raise BaseError(
            f"A model from scratch knows the catalog's codes and no words, so its prompt must be the bare {HISTORY} without a separator: "
            "leave the template out, add its words as tokens (--add-tokens), or start from a base model."
        )
    _check_reach(base, catalog, template)
    return base


def _find_base(name: str) -> tuple[PretrainedConfig | None, Path]:
    """The configuration for random weights; or None, and the directory of the weights."""
    path = Path(name)
    if name in PRESETS:
        return AutoConfig.for_model(**PRESETS[name]), path
    if path.suffix == ".json" and path.is_file():
        return _read_config(path), path
    if not (path / "config.json").is_file():
        raise BaseError(
            f"There is no base {name!r}: give a preset ({', '.join(PRESETS)}), a config.json to start from scratch, or a model directory."
        )
    return None if has_weights(path) else _read_config(path / "config.json"), path


def scratch_tokenizer(tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A tokenizer with the ids PAD, BOS, UNK and then `tokens` in their order."""
    vocabulary = {token: index for index, token in enumerate((PAD, BOS, UNK, *tokens))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    # Added tokens are found anywhere in a text; tokens of the vocabulary would need spaces between them.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, unk_token=UNK)


def _read_config(path: Path) -> PretrainedConfig:
    try:
        return read_config(path)
    except UnreadableError as error:
        raise BaseError(f"{path} is not a model configuration: {error}") from error


def _from_config(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> Base:
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id, None
    if config.is_encoder_decoder:
        config.decoder_start_token_id = config.pad_token_id
    _check_served(config, name)
    try:
        model = _auto_class(config).from_config(config, dtype=torch.float32, attn_implementation=_attention(config))
    except ValueError as error:
        raise BaseError(f"No language model can be made from {name}: {first_line(error)}") from error
    return Base(model, tokenizer, from_scratch=True, name=name)


def _unknown(template: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if a list's prompt has text around the identifiers that the tokenizer has no tokens for."""
    texts = [*template.template.split(HISTORY), template.separator]
    return any(tokenizer.unk_token_id in tokenizer.encode(text, add_special_tokens=False) for text in texts)


def _from_model(path: Path, tokens: Sequence[str]) -> Base:
    config = _read_config(path / "config.json")
    _check_served(config, str(path))
    if twice := weights_twice(path):
        raise BaseError(twice)
    try:
        tokenizer = read_tokenizer(path)
        model = load_whole(_auto_class(config), path, config, dtype="float32", attn_implementation=_attention(config))
    except LOADING_ERRORS as error:
        raise BaseError(f"The base model {path} cannot be loaded: {first_line(error)}") from error
    try:
        make_writable(model.generation_config)
    except ValueError as error:
        said = f"what its {GENERATION_FILE} or config.json says of generating texts can't be written again ({first_line(error)})"
        raise BaseError(f"The base model {path} can't be trained: {said}.") from error
    if config.is_encoder_decoder:
        _check_start(model, str(path))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    # Many checkpoints have more rows than their tokenizer has tokens; the spare rows do no harm.
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        resize_embeddings(model, len(tokenizer))
    return Base(model, tokenizer, from_scratch=False, name=str(path))


def _attention(config: PretrainedConfig) -> str | None:
    """The attention to train with, as transformers names it; None for the library's choice, which leaves soft caps out in silence."""
    return "eager" if config.get_text_config().to_dict().get("attn_logit_softcapping") is not None else None


def _auto_class(config: PretrainedConfig) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _check_served(config: PretrainedConfig, name: str) -> None:
    """Refuse models that can't be served, before they are trained for hours."""
    if not config.is_encoder_decoder:
        if not hasattr(config, "max_position_embeddings"):
            raise BaseError(
                f"The config.json of the base {name} does not say how many tokens the model reads: it has no max_position_embeddings."
            )
        return
    if config.model_type not in ENCODER_DECODERS:
        raise BaseError(
            f"The base {name} ({config.model_type}) is an encoder-decoder model, of which T5, mT5 and umT5 can be served: start from one "
            "of these, or from a causal model."
        )
    if config.to_dict().get("decoder_start_token_id") is None:
        raise BaseError(f"The config.json of the base {name} does not say how the decoder's text begins: add its decoder_start_token_id.")


def _check_start(model: PreTrainedModel, name: str) -> None:
    """Refuse a T5 that `generate` begins otherwise than training does, before what a server refuses is trained from it."""
    start, said = model.config.decoder_start_token_id, model.generation_config.decoder_start_token_id
    if said not in (None, start):
        raise BaseError(f"The base {name} begins with {start} by its config.json, and with {said} by {GENERATION_FILE}: make them alike.")


def _check_reach(base: Base, catalog: Catalog, template: PromptForm) -> None:
    builder = PromptBuilder(template, PromptTokenizer.of(base.tokenizer), catalog)
    if base.model.config.is_encoder_decoder:
        # Its positions are relative, which have no end.
        return
    longest = builder.max_tokens + catalog.identifier_length
    if longest > base.model.config.max_position_embeddings:
        raise BaseError(
            f"A prompt of {template.max_items} items and its answer take {longest} tokens, but {base.name} reads at most "
            f"{base.model.config.max_position_embeddings}: lower max_items (or max_tokens) or choose a longer base."
        )
