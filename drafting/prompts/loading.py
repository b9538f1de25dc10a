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
    from drafting.prompts.tokenizer import PromptTokenizer

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


def warn_if_begun_otherwise(form: PromptForm, tokenizer: "PromptTokenizer", folder: Path) -> None:
    """Log a warning if the `add_bos` of the prompt in a folder contradicts how the tokenizer begins a text, as in `tokenizer(text)`."""
    if not isinstance(form, PromptTemplate) or tokenizer.bos_token_id is None:
        return
    text, _ = form.text(["a"])
    bare, whole = tokenizer.ids(text), tokenizer.ids(text, add_special_tokens=True)
    begun = {True: [tokenizer.bos_token_id, *bare], False: bare}
    agrees = {add_bos: whole[: len(tokens)] == tokens for add_bos, tokens in begun.items()}
    if not agrees[form.add_bos]:
        other = not form.add_bos
        logger.warning(
            'The prompts of %s begin with %s, as "add_bos": %s in %s says, and the tokenizer begins their texts with %s: if the model was '
            "trained on texts as its tokenizer reads them, %s.",
            folder,
            [tokenizer.rust.id_to_token(token) for token in begun[form.add_bos][:2]],
            json.dumps(form.add_bos),
            PROMPT_FILE,
            [tokenizer.rust.id_to_token(token) for token in whole[:2]],
            f'set "add_bos": {json.dumps(other)}' if agrees[other] else 'write the prompt with "format": "jinja"',
        )


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
