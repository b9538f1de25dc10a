"""The second form of `prompt.json`: a template over all that is known of a user, or a chat of such templates.

It needs msgspec, so it is imported when a prompt has this form.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from drafting.errors import PromptError
from drafting.model_files import PROMPT_FILE
from drafting.prompts.thinking import ThinkTemplate
from drafting.prompts.window import Window

Count = Annotated[int, msgspec.Meta(ge=1)]
InteractionKind = Annotated[str, msgspec.Meta(min_length=1)]


class ListWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which events of a list a prompt shows.

    Attributes:
        max_items, min_items: see `Window`.
        order: which of them comes first.
    """

    max_items: Count = 20
    min_items: Count | None = None
    order: Literal["oldest", "newest"] = "oldest"

    def __post_init__(self) -> None:
        if self.min_items is not None and self.min_items > self.max_items:
            raise ValueError(f"min_items must lie between 1 and max_items = {self.max_items}, got {self.min_items}")

    @property
    def window(self) -> Window:
        """The window, if there is room for it."""
        return Window(self.max_items, self.min_items)


class _TextForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    history: ListWindow = ListWindow()
    behaviours: dict[InteractionKind, ListWindow] = {}
    max_tokens: Count = 2048
    think: ThinkTemplate | None = None

    def __post_init__(self) -> None:
        if private := next((kind for kind in self.behaviours if kind.startswith("_")), None):
            raise ValueError(f"a template can't read behaviours of the kind {private!r}: name it without the underscore in front")

    @property
    def is_bare(self) -> bool:
        """False: a template may write anything behind the last item."""
        return False

    @property
    def max_items(self) -> int:
        """Maximum number of items of the history in a prompt; whether there are more matters too."""
        return self.history.max_items

    @property
    def kinds(self) -> Mapping[str, int]:
        """The kinds of events that the prompt lists apart, and how many of each at most."""
        return {kind: window.max_items for kind, window in self.behaviours.items()}

    @property
    def window(self) -> Window:
        """The items of the history that the prompt shows, if it is not too long."""
        return self.history.window

    def contents(self) -> dict[str, Any]:
        """What `prompt.json` says, as objects of JSON."""
        contents: dict[str, Any] = msgspec.to_builtins(self)
        return contents

    def save(self, model_dir: Path) -> None:
        """Write `prompt.json` to a model directory."""
        (model_dir / PROMPT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


class JinjaForm(_TextForm, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prompt that one template writes.

    Attributes:
        template: its source.
        history, behaviours: which events it shows of all, and of each kind that it names.
        add_special_tokens: True if the tokenizer begins and ends the text as `tokenizer(text)` does.
        max_tokens: tokens that a prompt may have; of a longer one, the oldest items are left out.
        think: None if the target does not write before the list.
    """

    format: Literal["jinja"]
    template: str
    add_special_tokens: bool = True


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a chat; `content` is a template."""

    role: str
    content: str


class ChatForm(_TextForm, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prompt that the tokenizer's chat template writes around messages.

    Attributes:
        messages: they, in their order.
        add_generation_prompt: True if the chat template begins the answer.
        variables: what else the chat template is given, such as `enable_thinking`.
        after: text behind the chat: the beginning of the answer.
        add_special_tokens: True if the tokenizer begins and ends the text as well; most chat templates do that themselves.
    """

    chat: bool
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    add_generation_prompt: bool = True
    variables: dict[str, Any] = {}
    after: str = ""
    add_special_tokens: bool = False

    def __post_init__(self) -> None:
        _TextForm.__post_init__(self)
        if not self.chat:
            raise ValueError('"chat" is true or is left out')


TextForm = JinjaForm | ChatForm


def read_text_form(contents: dict[str, Any]) -> TextForm:
    """The form that the contents of a file are.

    Raises:
        PromptError: they are not of the second form.
    """
    if contents.get("think") is not None:
        ThinkTemplate.of(contents["think"])
    try:
        if "chat" in contents:
            return msgspec.convert(contents, ChatForm)
        return msgspec.convert(contents, JinjaForm)
    except msgspec.ValidationError as error:
        raise PromptError(str(error)) from error
