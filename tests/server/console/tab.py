"""A browser's tab, and what a page shows, without a browser."""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from nicegui import Client
from nicegui.elements.mixins.text_element import TextElement

from server.console.visits import Visits


class Tab:
    """A tab with its `sessionStorage`."""

    def __init__(self, **kept: str) -> None:
        self.kept = {name.replace("_", "-"): text for name, text in kept.items()}

    def run_javascript(self, code: str, *, timeout: float = 1.0) -> Any:
        """Do what the code says at once; the result can be awaited, and need not be."""
        kept = None
        if taken := re.fullmatch(r"sessionStorage\.getItem\('([a-z-]+)'\)", code):
            kept = self.kept.get(taken[1])
        elif put := re.fullmatch(r"sessionStorage\.setItem\('([a-z-]+)', (.+)\)", code):
            self.kept[put[1]] = json.loads(put[2])
        else:
            raise AssertionError(code)
        return _Done(kept)


class _Done:
    def __init__(self, value: object) -> None:
        self._value = value

    def __await__(self) -> Iterator[Any]:
        yield from ()
        return self._value


def visits_of(tab: Tab) -> Visits:
    """The users of a tab."""
    return Visits(cast(Client, tab))


def texts(page: Client) -> list[str]:
    """All texts of a page."""
    return [element.text for element in page.elements.values() if isinstance(element, TextElement) and element.text]
