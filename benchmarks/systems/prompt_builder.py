"""The prompts of a model directory, for systems that are asked without our engine."""

from pathlib import Path

from drafting.catalog.catalog import Catalog
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt
from drafting.prompts.tokenizer import PromptTokenizer
from verification.hosts.checkpoint import load_config, load_tokenizer, start_token


def prompt_builder(target: Path, catalog: Catalog) -> PromptBuilder:
    """The builder that a server of the model has.

    Raises:
        SetupError: model and catalog do not belong together.
    """
    tokenizer = PromptTokenizer.of(load_tokenizer(target))
    return PromptBuilder(load_prompt(target), tokenizer, catalog, start_token(load_config(target)))
