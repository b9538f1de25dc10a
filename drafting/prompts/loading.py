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
            tokenizer.names(begun[form.add_bos][:2]),
            json.dumps(form.add_bos),
            PROMPT_FILE,
            tokenizer.names(whole[:2]),
            f'set "add_bos": {json.dumps(other)}' if agrees[other] else 'write the prompt with "format": "jinja"',
        )


def warn_if_ended_otherwise(form: PromptForm, tokenizer: "PromptTokenizer", folder: Path, *, is_encoded: bool) -> None:
    """Log a warning if the prompts of an encoder do not end as `tokenizer(text)` does, or if those of a causal model do: a list goes on
    behind its prompt, where no text of training went on.

    Args:
        is_encoded: True if an encoder reads the prompts.
    """
    if isinstance(form, PromptTemplate):
        text, adds, advice = form.text(["a"])[0], False, "end the template with it"
    else:
        from drafting.prompts.text_form import ChatForm

        text = (form.after or "a") if isinstance(form, ChatForm) else form.template
        adds, advice = form.add_special_tokens, 'set "add_special_tokens": true'
    if (around := tokenizer.around(text)) is None or not len(around[1]):
        return
    begin, end = around[0].tolist(), around[1].tolist()
    if is_encoded and tokenizer.ids(text, add_special_tokens=adds)[-len(end) :] != end:
        logger.warning(
            "The prompts of %s do not end with %s, with which the tokenizer ends texts, and the encoder reads to the end: if the model was "
            "trained on texts as its tokenizer reads them, %s in %s.",
            folder,
            tokenizer.names(end),
            advice,
            PROMPT_FILE,
        )
    if adds and not is_encoded:
        logger.warning(
            "The prompts of %s end with %s, with which the tokenizer ends texts, and lists are searched for behind it: set "
            '"add_special_tokens": false in %s%s.',
            folder,
            tokenizer.names(end),
            PROMPT_FILE,
            f", and begin the prompt with {tokenizer.names(begin)}" if begin else "",
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
