"""What vLLM says when it can't load a model, in our words around its own.

Invariant: a sentence names only options of this server. vLLM's own advice is left out, because its options do not exist here.
"""

import re

from pydantic import ValidationError

from drafting.errors import first_line

# What comes after the reason: lists of all there is, and advice.
FURTHER = re.compile(r" (The available parameters|Supported architectures|Decrease --kv-cache-memory-bytes|Decrease GPU memory).*")
TOO_LITTLE_MEMORY = re.compile("out of memory|can't allocate memory|requested memory for kv|Free memory on device")


def reason(error: Exception, kind: str) -> str:
    """Why vLLM can't run a model of a family, as the end of a sentence."""
    message = _message(error)
    if isinstance(error, ImportError):
        return message
    if TOO_LITTLE_MEMORY.search(message):
        return f'there is too little memory for it and --kv-memory-gib: "{message}"'
    return f'vLLM cannot run this model ({kind}) here: "{message}"; try --engine transformers'


def _message(error: Exception) -> str:
    """vLLM's error message, without the wrapping by pydantic."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    if isinstance(error, AssertionError) and not str(error):
        return f"vLLM requires {first_line(error)}"
    return FURTHER.sub("", first_line(error))
