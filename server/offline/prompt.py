"""The prompt of a history, token by token, as the engine gives it to the target."""

import msgspec

from drafting.prompts.user_state import UserState
from verification.hosts.served_model import FittedCatalog, ServedModel


class PromptToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token of a prompt.

    Attributes:
        token: the token as the vocabulary has it.
        text: what the tokenizer writes for it.
        part: before, item, separator or after; of a template text or code.
        item_id, title: id and title of the item whose identifier the token is part of.
    """

    position: int
    id: int
    token: str
    text: str
    part: str
    item_id: str | None = None
    title: str | None = None


def prompt_tokens(served: ServedModel, fitted: FittedCatalog, user: UserState) -> list[PromptToken]:
    """The tokens of the prompt of a user.

    Raises:
        PromptError: the history is empty.
    """
    tokenizer, catalog = served.tokenizer, fitted.catalog
    found: list[PromptToken] = []
    for part in fitted.prompts.parts(user):
        ids = part.tokens.tolist()
        item_id = None if part.item is None else catalog.item_ids[part.item]
        title = None if part.item is None else catalog.title(part.item)
        for number, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
            found.append(PromptToken(len(found), number, token, tokenizer.decode([number]), part.kind, item_id, title))
    return found
