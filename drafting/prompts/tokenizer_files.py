"""Tokenizers on disk: saved so that they are read back as they are, and compared with their file when they are read.

transformers takes the vocabulary from `tokenizer.json`, but makes the rest anew from the class that `tokenizer_config.json` names, whose
options are not all written there: a LlamaTokenizer with `legacy=True` is read back without it, and gives other ids for the same text.
"""

import json
import logging
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from drafting.pretrained import read_tokenizer

logger = logging.getLogger(__name__)

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
# The class that takes everything from tokenizer.json.
_PLAIN_CLASS = "PreTrainedTokenizerFast"


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer to a model directory so that it is read back with the same ids for every text."""
    tokenizer.save_pretrained(folder)
    if _difference(tokenizer, read_tokenizer(folder).backend_tokenizer) is None:
        return
    path = folder / _CONFIG
    contents = json.loads(path.read_bytes()) | {"tokenizer_class": _PLAIN_CLASS}
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n")


def warn_if_read_otherwise(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Log a warning if the tokenizer that was read from a folder gives other ids than the `tokenizer.json` in it as it stands."""
    path = folder / _FILE
    if not path.is_file():
        return
    written = Tokenizer.from_file(str(path))
    if (text := _difference(tokenizer, written)) is not None:
        logger.warning(
            "transformers makes a %s of the tokenizer in %s, which cuts %r into %s, where %s as it stands has %s: prompts are made with "
            'the former. If the model was trained with the latter, set "tokenizer_class" to "%s" in %s.',
            type(tokenizer).__name__,
            folder,
            text,
            tokenizer.tokenize(text),
            _FILE,
            written.encode(text, add_special_tokens=False).tokens,
            _PLAIN_CLASS,
            _CONFIG,
        )


def _difference(tokenizer: PreTrainedTokenizerBase, other: Tokenizer) -> str | None:
    """The first of some texts, such as prompts have, for which the two give different ids; None if there is none."""
    added = [token.content for token in other.get_added_tokens_decoder().values()]
    plain = [token for token in added if token not in tokenizer.all_special_tokens]
    codes = dict.fromkeys([*added[-1:], *plain[-1:]])
    texts = ["a, b", " a", "é 1 B", *(f"a {code}, {code} b\n{code}." for code in codes)]
    return next((text for text in texts if tokenizer(text)["input_ids"] != other.encode(text).ids), None)
