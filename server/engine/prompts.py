"""What the API process builds prompts with, as the engine hands it over.

Invariant: both processes have the same form, tokenizer and catalog, so they build the same prompts; and what is read is what was written,
as its digest says.
"""

import hashlib
import json
from pathlib import Path

import msgspec

from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm, prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from server.messages import PromptFiles

TOKENIZER_FILE = "prompt-tokenizer.json"


def write_prompts(builder: PromptBuilder, directory: Path) -> PromptFiles:
    """Write what a builder builds with; the tokenizer is a file of up to tens of megabytes."""
    tokenizer, path = builder.tokenizer, directory / TOKENIZER_FILE
    path.write_text(text := tokenizer.rust.to_str(), encoding="utf-8")
    files = PromptFiles(
        str(path),
        "",
        builder.form.contents(),
        tokenizer.bos_token_id,
        tokenizer.chat_template,
        dict(tokenizer.special_tokens),
        tokenizer.splits_special,
        builder.start_token,
    )
    return msgspec.structs.replace(files, digest=_digest(files, text))


class PromptSource:
    """A form and a tokenizer that were handed over, ready for any catalog."""

    def __init__(self, files: PromptFiles) -> None:
        """
        Raises:
            OSError: the process that wrote the files is gone.
            PromptError: they are not what it wrote.
        """
        text = Path(files.tokenizer).read_text(encoding="utf-8")
        if _digest(files, text) != files.digest:
            raise PromptError(f"What prompts are made with is not what the engine wrote: {files.tokenizer} has been changed, or cut off.")
        self._form: PromptForm = prompt_of(files.form)
        self._tokenizer = PromptTokenizer.of_text(
            text, files.bos_token_id, files.chat_template, files.special_tokens, splits_special=files.splits_special
        )
        self._start_token = files.start_token

    def builder(self, catalog: Catalog) -> PromptBuilder:
        """The builder of prompts from a catalog that an engine has loaded with the same form and tokenizer."""
        return PromptBuilder(self._form, self._tokenizer, catalog, self._start_token)


def _digest(files: PromptFiles, tokenizer: str) -> str:
    """SHA-256 of what prompts are built with, `tokenizer` being the text of that file, wherever it lies."""
    special = [files.special_tokens, files.splits_special]
    rest = json.dumps([files.form, files.bos_token_id, files.chat_template, *special, files.start_token])
    return hashlib.sha256(f"{rest}{tokenizer}".encode()).hexdigest()
