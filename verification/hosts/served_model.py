"""The served model and its fit to a catalog: tokenizer, prompt and maximum length.

Invariant: a catalog that `fit` returns can be served: the model has ids and embeddings of its tokens, and of those that all prompts and all
texts before lists have, and the longest prompt with an identifier is within the maximum length of target and draft.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from drafting.array_types import IntArray
from drafting.beam.rule import Normalisation, NormaliseName
from drafting.catalog.catalog import Catalog
from drafting.model_files import PROMPT_FILE, ModelFiles, ModelFilesError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm, load_prompt, warn_if_begun_otherwise, warn_if_ended_otherwise
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from verification.hosts.adapter import load_model_config, warn_if_untrained
from verification.hosts.checkpoint import (
    TRAINING_FILE,
    HostError,
    auto_class,
    has_encoder,
    load_tokenizer,
    model_class,
    most_tokens,
    quantization_method,
    resolve_dtype,
    rotary_boundary,
    start_token,
    stop_tokens,
    trained_catalog,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedCatalog:
    """A catalog in the tokens of one model.

    Attributes:
        catalog: catalog with its tokens in the order of their token ids.
        token_ids: `[tokens]` int64, token id of each token of the catalog.
        prompts: builder of prompts from the catalog's items.
    """

    catalog: Catalog
    token_ids: IntArray
    prompts: PromptBuilder

    @property
    def longest(self) -> int:
        """The most tokens of a prompt, a text behind it and an identifier."""
        text = 0 if self.prompts.thinking is None else self.prompts.thinking.most_tokens
        return self.prompts.max_tokens + text + self.catalog.identifier_length

    @property
    def last_token(self) -> int:
        """The largest token id of all that is the same for every user."""
        thinking, parts = self.prompts.thinking, [self.token_ids, self.prompts.shared_tokens]
        if thinking is not None:
            parts += [thinking.end, thinking.after]
        return max(int(tokens.max(initial=0)) for tokens in parts)

    @property
    def parts(self) -> str:
        """The parts of the longest text, as the beginning of a sentence."""
        return "Prompt and identifier" if self.prompts.thinking is None else "Prompt, text before the list and identifier"

    @property
    def limits(self) -> str:
        """The settings that bound the longest text."""
        bound = "max_items" if isinstance(self.prompts.form, PromptTemplate) else "max_tokens"
        return bound if self.prompts.thinking is None else f"{bound} or think.max_tokens"


class ServedModel:
    """A target and its optional draft model.

    Attributes:
        target: directory of the target.
        files, draft_files: directories of the parts of target and draft.
        tokenizer: the target's.
        loaded_for: maximum number of tokens of a sequence for which the model was loaded; None until it is loaded.
    """

    def __init__(self, target: Path, draft: Path | None = None, base: Path | None = None, draft_base: Path | None = None) -> None:
        """
        Args:
            base, draft_base: base models of a target and a draft that are adapters; by default those that their configurations name.

        Raises:
            SetupError: target or draft cannot be served, or they do not belong together.
        """
        self.target = target
        self.loaded_for: int | None = None
        self.files = ModelFiles.find(target, base)
        if draft is None and draft_base is not None:
            raise HostError(f"There is no draft whose base {draft_base} could be: name its directory with --draft.")
        self.draft_files = None if draft is None else ModelFiles.find(draft, draft_base, "--draft-base")
        self._config = load_model_config(self.files)
        self.tokenizer = load_tokenizer(self.files.tokenizer)
        self._draft = None
        if self.draft_files is not None:
            self._draft = (self.draft_files.directory, load_model_config(self.draft_files))
            _check_start(*self._draft, start_token(self._config))
            _check_draft(self.draft_files, target, self.tokenizer)

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """The token ids of the target, by token."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        return vocabulary

    @cached_property
    def known_tokens(self) -> int:
        """Tokens from 0 on that target and draft have embeddings of; a tokenizer may have more."""
        configs = [self._config] if self._draft is None else [self._config, self._draft[1]]
        return min(int(config.vocab_size) for config in configs)

    @cached_property
    def _template(self) -> PromptForm:
        form = load_prompt(self.files.prompt)
        # What `atspeed train` has trained was trained on these very prompts.
        if not (self.files.prompt / TRAINING_FILE).exists():
            tokenizer = PromptTokenizer.of(self.tokenizer)
            warn_if_begun_otherwise(form, tokenizer, self.files.prompt)
            warn_if_ended_otherwise(form, tokenizer, self.files.prompt, is_encoded=has_encoder(self._config))
        return form

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens with which a text of the target ends."""
        return stop_tokens(self._config, self.files.weights)

    @property
    def is_quantized(self) -> bool:
        """True if the target's checkpoint holds quantized weights."""
        return quantization_method(self._config, self.files.weights) is not None

    def dtype(self, name: str) -> torch.dtype:
        """The precision of the target that a name stands for; see `resolve_dtype`."""
        return resolve_dtype(self._config, name)

    def normalisation(self, name: NormaliseName) -> Normalisation:
        """The normalisation that an option names; raise ModelFilesError if auto finds a damaged generation configuration."""
        if name == "auto":
            return Normalisation.CHILDREN if self.files.renormalises else Normalisation.VOCABULARY
        return Normalisation(name)

    def warn(self, catalog: Catalog) -> None:
        """Log what makes lists other than one might expect: code of its own and settings of generation, which are not used, an adapter that
        has lost what it had learnt of its tokens, and a catalog that the target was not trained for, which may be one with more items, or
        one whose identifiers mean other items."""
        brought, family = self._config.to_dict().get("auto_map") or {}, model_class(self._config)
        # What `atspeed train` has trained was trained as transformers' class, whatever its base had brought.
        is_ours = (self.files.weights / TRAINING_FILE).exists()
        if family is not None and auto_class(self._config).__name__ in brought and not is_ours:
            logger.warning(
                "The config.json of %s names code of its own for the model (auto_map), which is never run: lists are those of "
                "transformers' %s, and wrong if that code computes anything otherwise.",
                self.files.weights,
                family.__name__,
            )
        # A damaged file is told of where it decides something.
        with suppress(ModelFilesError):
            if penalties := self.files.penalties:
                logger.warning(
                    "%s says %s, which transformers' generate would change scores by: lists here are made without.",
                    self.files.generation_file,
                    ", ".join(f"{name} {json.dumps(value)}" for name, value in penalties.items()),
                )
        warn_if_untrained(self.files)
        trained = None
        # Without a draft nothing depends on this file, and another trainer may have written it: one that can't be read is passed over.
        with suppress(HostError):
            trained = trained_catalog(self.target)
        if trained is not None and trained != catalog.version:
            logger.warning(
                "The target in %s was trained for another catalog (version %s, by its %s) than is served (version %s): lists are right "
                "if items have only come or gone, and wrong if identifiers mean other items.",
                self.target,
                trained,
                TRAINING_FILE,
                catalog.version,
            )

    def fit(self, catalog: Catalog) -> FittedCatalog:
        """Convert a catalog to the token ids of the model.

        Raises:
            SetupError: catalog and model do not belong together.
        """
        catalog = catalog.ordered(catalog.vocabulary_ids(self.vocabulary))
        token_ids = catalog.vocabulary_ids(self.vocabulary)
        prompts = PromptBuilder(self._template, PromptTokenizer.of(self.tokenizer), catalog, start_token(self._config))
        if prompts.thinking is not None and has_encoder(self._config):
            raise HostError(f"The model in {self.target} has an encoder and can't think before a list: leave think out of {PROMPT_FILE}.")
        fitted = FittedCatalog(catalog, token_ids, prompts)
        _check_reach(self.target, self._config, fitted)
        if self.loaded_for is not None and fitted.longest > self.loaded_for:
            raise HostError(
                f"Prompts of this catalog reach {fitted.longest} tokens, but the model was loaded for {self.loaded_for}: start a server "
                "with it."
            )
        if self._draft is not None:
            _check_reach(*self._draft, fitted)
        return fitted


def _check_reach(model_dir: Path, config: PretrainedConfig, fitted: FittedCatalog) -> None:
    most = most_tokens(config)
    if most is not None and fitted.longest > most:
        raise HostError(
            f"{fitted.parts} can grow to {fitted.longest} tokens, but the model in {model_dir} reads at most {most}: lower {fitted.limits} "
            f"in the target's {PROMPT_FILE}."
        )
    boundary = rotary_boundary(config)
    if boundary is not None and fitted.longest > boundary:
        raise HostError(
            f"{fitted.parts} can grow to {fitted.longest} tokens, but the model in {model_dir} ({config.model_type}) has other rotary "
            f"positions (longrope) for texts of more than {boundary}, which can't be served: lower {fitted.limits} in the target's "
            f"{PROMPT_FILE}."
        )
    if fitted.last_token >= config.vocab_size:
        raise HostError(
            f"The tokenizer of {model_dir} has tokens that its model does not know: they reach id {fitted.last_token}, and the model has "
            f"{config.vocab_size} embeddings. Serve the model that was trained with this tokenizer, or an adapter on the base that was "
            "resized for it; embeddings that are added now would have learnt nothing."
        )


def _check_start(draft: Path, config: PretrainedConfig, start: int | None) -> None:
    """Check that a draft with an encoder reads the target's prompts; one without an encoder reads any."""
    if has_encoder(config) and start_token(config) != start:
        raise HostError(
            f"The draft in {draft} is an encoder-decoder model, which can only draft for a target that is one, too, with the same "
            "decoder_start_token_id."
        )


def _check_draft(files: ModelFiles, target: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that draft and target have the same token ids and the same catalog."""
    draft = files.directory
    vocabulary, known = tokenizer.get_vocab(), load_tokenizer(files.tokenizer).get_vocab()
    differing = [token for token, number in vocabulary.items() if known.get(token) != number]
    if differing:
        raise HostError(
            f"The draft in {draft} has another vocabulary than the target in {target}: {len(differing)} tokens differ, {differing[0]!r} "
            "among them. A draft must be trained with the target's tokenizer."
        )
    theirs, ours = trained_catalog(draft), trained_catalog(target)
    if theirs and ours and theirs != ours:
        raise HostError(
            f"The draft in {draft} was trained for another catalog (version {theirs}) than the target in {target} (version {ours})."
        )
