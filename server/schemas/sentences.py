"""Sentences that say what is wrong with a request that its model refuses.

Invariant: a sentence names the field and the rule. It quotes what was sent only if that is short and says nothing about a person.
"""

from collections.abc import Mapping
from typing import Any

from drafting.errors import quoted
from server.schemas import given, timestamp

# Characters of a client's own name that a sentence quotes.
_MOST_CHARACTERS = 128


def validation_sentence(error: Mapping[str, Any]) -> str:
    """One sentence for one of pydantic's errors on a request."""
    place, *path = error["loc"]
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part if len(part) <= _MOST_CHARACTERS else part[:_MOST_CHARACTERS] + '…'}"
        for part in path
    )
    field = "".join(parts).lstrip(".")
    message = str(error["msg"])
    private = not given.PRIVATE.isdisjoint(path)
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing" if not path:
            return "The request has no body: send a JSON object."
        case "missing":
            return f"The field {field!r} is missing."
        case given.FACTS_ERROR | timestamp.TIMESTAMP_ERROR:
            return f"{field or f'The {place}'} {message}."
        case "string_unicode" if private:
            return f"{field} holds text that UTF-8 can't carry."
        case "string_unicode":
            return f"{field or f'The {place}'} holds text that UTF-8 can't carry: {quoted(str(error['input']))}."
        case "extra_forbidden":
            return f"There is no field {quoted(field)}."
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{field or f'The {place}'} must be a JSON object."
    subject, verb, rule = message.partition(" should ")
    if not verb:
        return f"{field or place}: {message}."
    rule = f"{field or place} must {rule.replace(' after validation', '')}"
    sent = error.get("input")
    shown = "true" if sent is True else "false" if sent is False else "null" if sent is None else sent
    told = subject == "Input" and isinstance(shown, str | int | float) and len(str(shown)) < 30 and not private
    return f"{rule}, got {shown}." if told else f"{rule}."
