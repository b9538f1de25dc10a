"""Configurations, tokenizers and models as transformers reads them from a model directory.

Invariant: no code from a model's directory runs, and nobody is asked on the standard input whether it should; whatever a library raises of
a damaged file is one error with one sentence. A configuration says what a model is: how transformers is to run it, which attention it takes
and what it answers, is settled by the code that loads it. A tokenizer whose directory names the class of all tokenizers is read as its
`tokenizer.json` stands, beside a model of any family. No model is partly made of random numbers, with which transformers fills up.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from drafting.errors import SetupError, first_line

logger = logging.getLogger(__name__)

TOKENIZER_FILE, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
# Where older releases of transformers left what SentencePiece has learnt.
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
# The class that takes everything from tokenizer.json; transformers has another name for it, too.
PLAIN_CLASS = "PreTrainedTokenizerFast"
PLAIN_CLASSES = (PLAIN_CLASS, "TokenizersBackend")
# The setting by which a directory names code of its own.
AUTO_MAP = "auto_map"
# What libraries raise for checkpoints that they can't load.
LOADING_ERRORS = (
    *(ValueError, OSError, RuntimeError, ImportError, AttributeError, TypeError, LookupError, EOFError, UnpicklingError),
    # Libraries assert some requirements on the model and on the machine, such as a device for each rank.
    AssertionError,
    # Values of a configuration have another type, or do not go together.
    StrictDataclassError,
)


class UnreadableError(SetupError):
    """A library can't read a file of a model's directory; the message is the reason."""


def read_config(path: Path) -> PretrainedConfig:
    """The configuration in a `config.json`, or in the directory that holds one.

    Raises:
        UnreadableError: it is damaged, or of a family that only code of its own describes.
    """
    with _sentences():
        config: PretrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
        # Training leaves these behind; the attention that the file names goes before the one that a caller asks for.
        config._attn_implementation = None
        config.output_attentions = False
        config.return_dict = True
    return config


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory.

    Raises:
        UnreadableError: it is missing or damaged, or needs code of its own or a package that is not installed.
    """
    tokenizer: PreTrainedTokenizerBase
    _check_sentencepiece(folder)
    with _sentences():
        config = folder / TOKENIZER_CONFIG
        said = json.loads(config.read_bytes()) if config.is_file() else {}
        if (folder / TOKENIZER_FILE).is_file() and AUTO_MAP not in said and said.get("tokenizer_class") in PLAIN_CLASSES:
            # Beside models of some families, such as Qwen2, transformers makes the family's tokenizer of whatever class is named.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            # Mistral's own format, in files beside, lacks the tokens that were added in training.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, mistral_format=False)
    # Older releases wrote a list of the tokenizer's classes alone.
    if isinstance(brought := said.get(AUTO_MAP) or (), list) or "AutoTokenizer" in brought:
        _warn_of_own_code(config, "tokenizer", type(tokenizer).__name__)
    return tokenizer


def load_whole(auto: Any, folder: Path, config: PretrainedConfig, **settings: Any) -> Any:
    """The model in a directory, by one of transformers' auto classes.

    Args:
        settings: others of `from_pretrained`.

    Raises:
        UnreadableError: some of its weights are missing.
        LOADING_ERRORS: transformers can't load it.
    """
    model, loading = auto.from_pretrained(folder, config=config, trust_remote_code=False, output_loading_info=True, **settings)
    # Whoever trusts the code of an encoder loads it by the class of all models.
    name = "AutoModel" if auto.__name__ == "AutoModelForTextEncoding" else auto.__name__
    if name in (config.to_dict().get(AUTO_MAP) or ()):
        _warn_of_own_code(folder / "config.json", "model", type(model).__name__)
    # Many encoders are saved without a pooler, which nothing here reads.
    if missing := sorted(name for name in loading["missing_keys"] if not name.startswith("pooler.")):
        raise UnreadableError(f"its weights are not those of its config.json: {len(missing)} are missing, {missing[0]!r} among them")
    return model


def _check_sentencepiece(folder: Path) -> None:
    """Name the package that a tokenizer needs: without it, transformers takes the file for one of tiktoken's, and asks for that."""
    if (folder / TOKENIZER_FILE).is_file() or find_spec("sentencepiece") is not None:
        return
    if (found := next((name for name in SENTENCEPIECE_FILES if (folder / name).is_file()), None)) is not None:
        raise UnreadableError(f"it is in {found}, which needs a package that is not installed: pip install sentencepiece")


def _warn_of_own_code(path: Path, what: str, taken: str) -> None:
    logger.warning(
        "%s names code of its own for the %s (%s), which is never run: transformers' %s is taken, and is wrong if that code does anything "
        "otherwise.",
        path,
        what,
        AUTO_MAP,
        taken,
    )


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except LOADING_ERRORS as error:
        raise UnreadableError(first_line(error)) from error
    except Exception as error:
        # The Rust library below tokenizers raises this very class, and none of its own, for a file that it can't parse.
        if type(error) is not Exception:
            raise
        raise UnreadableError(first_line(error)) from error
