"""Reads `prompt.json`, in either form."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from drafting.errors import PromptError, check_file
from drafting.model_files import PROMPT_FILE
from drafting.prompts.template import PromptTemplate

if TYPE_CHECKING:
    from drafting.prompts.text_form import TextForm

PromptForm = Union[PromptTemplate, "TextForm"]

logger = logging.getLogger(__name__)


def load_prompt(model_dir: Path) -> PromptForm:
    """Read `prompt.json` from a model directory; without the file, return the default and log a warning.

    Raises:
        PromptError: the file is not a prompt.
    """
    path = model_dir / PROMPT_FILE
    if not path.exists():
        logger.warning("%s has no %s: using the default prompt %s", model_dir, PROMPT_FILE, PromptTemplate())
        return PromptTemplate()
    return read_prompt(path)


def read_prompt(path: Path) -> PromptForm:
    """Read a file such as `prompt.json`.

    Raises:
        PromptError: it is not a prompt.
    """
    check_file(path, "The prompt", PromptError)
    try:
        contents = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise PromptError(f"{path} is not a prompt template: {error}") from error
    try:
        return prompt_of(contents)
    except PromptError as error:
        raise PromptError(f"{path} is not a prompt template: {error}") from error


def prompt_of(contents: Any) -> PromptForm:
    """The prompt that the contents of a file are.

    Raises:
        PromptError: they are of neither form.
    """
    if not isinstance(contents, dict):
        raise PromptError("it holds no object of JSON.")
    if "format" in contents or "chat" in contents:
        from drafting.prompts.text_form import read_text_form

        return read_text_form(contents)
    return PromptTemplate.of(contents)


def thinking_form(form: PromptForm) -> PromptForm:
    """The prompt of requests that think: of the same form, with the fields that `think.prompt` gives anew.

    Raises:
        PromptError: they are no fields of it.
    """
    if form.think is None or not form.think.prompt:
        return form
    try:
        return prompt_of({**form.contents(), **form.think.prompt, "think": None})
    except PromptError as error:
        raise PromptError(f"The prompt of requests that think, by think.prompt in {PROMPT_FILE}: {error}") from error
