"""The first form of `prompt.json`: one list of identifiers between two texts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from drafting.errors import PromptError
from drafting.model_files import PROMPT_FILE
from drafting.prompts.thinking import ThinkTemplate
from drafting.prompts.window import Window

HISTORY = "{history}"
_NAME = re.compile(r"\{[A-Za-z_][\w.\[\]]*\}")


@dataclass(frozen=True)
class PromptTemplate:
    """The contents of `prompt.json` in the directory of a model.

    Attributes:
        template: text of the prompt, with `{history}` in place of the identifiers.
        separator: text between the identifiers of two items.
        max_items: maximum number of items in a prompt, the newest ones of the history.
        min_items: minimum number of items in the prompt of a history longer than `max_items`; None for half of `max_items`.
            A smaller number makes prefix caching more effective, because the window moves less often, but shortens prompts. If equal to
            `max_items`, the window moves with every item.
        add_bos: True if the prompt starts with the tokenizer's beginning-of-sequence token.
        think: how the target writes text before a list; None if it can't.
    """

    template: str = HISTORY
    separator: str = ""
    max_items: int = 20
    min_items: int | None = None
    add_bos: bool = True
    think: ThinkTemplate | None = None

    def __post_init__(self) -> None:
        kinds = {name: type(value) for name, value in asdict(self).items()}
        fewest, _ = kinds.pop("min_items"), kinds.pop("think")
        if kinds != {"template": str, "separator": str, "max_items": int, "add_bos": bool} or fewest not in (int, type(None)):
            raise PromptError(
                "A prompt's template and separator are text, max_items and min_items are whole numbers and add_bos is true or false."
            )
        if self.template.count(HISTORY) != 1:
            raise PromptError(f"A prompt template must contain {HISTORY} exactly once, got {self.template!r}.")
        for unknown in self._unknown_names():
            raise PromptError(
                f"A prompt template fills in {HISTORY} alone, and {unknown} would reach the model as it stands: leave it out, or, if the "
                f'model was trained with just that, write the template in the other form, with "format": "jinja", where it is text.'
            )
        if self.max_items < 1:
            raise PromptError(f"A prompt must hold at least one item, got max_items = {self.max_items}.")
        if self.min_items is not None and not 1 <= self.min_items <= self.max_items:
            raise PromptError(f"min_items must lie between 1 and max_items = {self.max_items}, got {self.min_items}.")

    def _unknown_names(self) -> Iterator[str]:
        """Names in braces that nothing is filled in for."""
        yield from (name for text in self.template.split(HISTORY) for name in _NAME.findall(text))
        yield from _NAME.findall(self.separator)

    @property
    def is_bare(self) -> bool:
        """True if there is nothing between two items or after the last: the prompt of a window begins with those of its prefixes."""
        return self.template == HISTORY and not self.separator

    @property
    def kinds(self) -> Mapping[str, int]:
        """The kinds of events that the prompt lists apart, and how many of each at most: none."""
        return {}

    @property
    def window(self) -> Window:
        """The items of a history that the prompt shows."""
        return Window(self.max_items, self.min_items)

    def text(self, items: Sequence[str]) -> tuple[str, list[int]]:
        """The text of the prompt of items in this order, and where in it each item begins and ends, in turn."""
        before, after = self.template.split(HISTORY)
        position, places = len(before), []
        for item in items:
            places += [position, position + len(item)]
            position += len(item) + len(self.separator)
        return before + self.separator.join(items) + after, places

    @classmethod
    def of(cls, contents: Mapping[str, Any]) -> "PromptTemplate":
        """The prompt that the contents of a file are.

        Raises:
            PromptError: they are none.
        """
        known = [field.name for field in fields(cls)]
        if unknown := next((key for key in contents if key not in known), None):
            raise PromptError(f"it has no field {unknown!r}, its fields are {', '.join(known)}.")
        if (think := contents.get("think")) is not None:
            contents = {**contents, "think": ThinkTemplate.of(think)}
        return cls(**contents)

    def contents(self) -> dict[str, Any]:
        """What `prompt.json` says, as objects of JSON."""
        contents = asdict(self)
        if self.think is None:
            del contents["think"]
        return contents

    def save(self, model_dir: Path) -> None:
        """Write `prompt.json` to a model directory."""
        (model_dir / PROMPT_FILE).write_text(json.dumps(self.contents(), indent=2) + "\n")
