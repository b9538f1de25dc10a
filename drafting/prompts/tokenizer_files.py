"""Tokenizers on disk: saved so that they are read back as they are, and compared with their file when they are read.

transformers takes the vocabulary from `tokenizer.json`, but makes the rest anew from the class that `tokenizer_config.json` names, whose
options are not all written there: a LlamaTokenizer with `legacy=True` is read back without it, and gives other ids for the same text.
"""

import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerBase

from drafting.errors import PromptError
from drafting.pretrained import AUTO_MAP, PLAIN_CLASS, TOKENIZER_CONFIG, TOKENIZER_FILE, read_tokenizer

logger = logging.getLogger(__name__)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer to a model directory, beside its configuration, so that it is read back with the same ids for every text.

    Raises:
        PromptError: it is not, whatever is written.
    """
    tokenizer.save_pretrained(folder)
    path = folder / TOKENIZER_CONFIG
    settings = json.loads(path.read_bytes())
    if settings.pop(AUTO_MAP, None) is not None:
        # Code of its own, which was not run here and does not lie there.
        _write(path, settings)
    if _difference(tokenizer, read_tokenizer(folder).backend_tokenizer) is None:
        return
    _write(path, settings | {"tokenizer_class": PLAIN_CLASS})
    if (text := _difference(tokenizer, read_tokenizer(folder).backend_tokenizer)) is not None:
        raise PromptError(f"The tokenizer in {folder} is read back with other ids for {text!r} than it was saved with.")


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def warn_if_read_otherwise(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Log a warning if the tokenizer that was read from a folder gives other ids than the `tokenizer.json` in it as it stands, or, where a
    Llama's has none, than it gave in transformers 4."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        _warn_if_legacy_is_not_said(tokenizer, folder)
        return
    written = Tokenizer.from_file(str(path))
    # Which no class changes, and the file does not hold.
    written.encode_special_tokens = bool(tokenizer.split_special_tokens)
    if (text := _difference(tokenizer, written)) is not None:
        logger.warning(
            "transformers makes a %s of the tokenizer in %s, which cuts %r into %s, where %s as it stands has %s: prompts are made with "
            'the former. If the model was trained with the latter, set "tokenizer_class" to "%s" in %s.',
            type(tokenizer).__name__,
            folder,
            text,
            tokenizer.tokenize(text),
            TOKENIZER_FILE,
            written.encode(text, add_special_tokens=False).tokens,
            PLAIN_CLASS,
            TOKENIZER_CONFIG,
        )


def _warn_if_legacy_is_not_said(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Log a warning if a Llama's tokenizer, in a folder without `tokenizer.json`, is read otherwise than by transformers 4, which
    took `legacy` for true where nothing says it."""
    config = folder / TOKENIZER_CONFIG
    said = json.loads(config.read_bytes()).get("legacy") if config.is_file() else None
    described = json.loads(tokenizer.backend_tokenizer.to_str()) if isinstance(tokenizer, LlamaTokenizer) and said is None else {}
    before = described.get("pre_tokenizer") or {}
    if before.get("prepend_scheme") != "first":
        return
    before["prepend_scheme"] = "always"
    legacy = Tokenizer.from_str(json.dumps(described))
    legacy.encode_special_tokens = bool(tokenizer.split_special_tokens)
    if (text := _difference(tokenizer, legacy)) is not None:
        logger.warning(
            'The tokenizer in %s does not say whether it is "legacy": transformers 5 cuts %r into %s, and transformers 4 cut it into %s. '
            'Prompts are made as by the former; if the model was trained with the latter, set "legacy": true in %s.',
            folder,
            text,
            tokenizer.tokenize(text),
            legacy.encode(text, add_special_tokens=False).tokens,
            TOKENIZER_CONFIG,
        )


def _difference(tokenizer: PreTrainedTokenizerBase, other: Tokenizer) -> str | None:
    """The first of some texts, such as prompts have, for which the two give different ids; None if there is none."""
    # The last call of a training may have left in the file how it padded and cut texts, which no prompt is.
    other.no_padding()
    other.no_truncation()
    added = [token.content for token in other.get_added_tokens_decoder().values()]
    plain = [token for token in added if token not in tokenizer.all_special_tokens]
    codes = dict.fromkeys([*added[-1:], *plain[-1:]])
    texts = ["a, b", " a", "é 1 B", *(f"a {code}, {code} b\n{code}." for code in codes)]
    return next((text for text in texts if tokenizer(text)["input_ids"] != other.encode(text).ids), None)
