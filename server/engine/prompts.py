"""What the API process builds prompts with, as the engine hands it over.

Invariant: both processes have the same form, tokenizer and catalog, so they build the same prompts; and what is read is what was written
(the digest says so), because the file of a process that has died is gone.
"""

import hashlib
import json
from pathlib import Path

from drafting.catalog.catalog import Catalog
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
        builder.start_token,
    )
    rest = json.dumps([files.form, files.bos_token_id, files.chat_template, files.special_tokens, files.start_token])
    files.digest = hashlib.sha256(f"{rest}{text}".encode()).hexdigest()
    return files


class PromptSource:
    """A form and a tokenizer that were handed over, ready for any catalog."""

    def __init__(self, files: PromptFiles) -> None:
        """
        Raises:
            OSError: the process that wrote the files is gone.
        """
        text = Path(files.tokenizer).read_text(encoding="utf-8")
        self.digest = files.digest
        self._form: PromptForm = prompt_of(files.form)
        self._tokenizer = PromptTokenizer.of_text(text, files.bos_token_id, files.chat_template, files.special_tokens)
        self._start_token = files.start_token

    def builder(self, catalog: Catalog) -> PromptBuilder:
        """The builder of prompts from a catalog that an engine has loaded with the same form and tokenizer."""
        return PromptBuilder(self._form, self._tokenizer, catalog, self._start_token)
