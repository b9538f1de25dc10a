"""What a template sees of a user: items with their identifiers and titles, the profile, the context."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import Catalog
from drafting.prompts.user_state import UserEvent
from drafting.prompts.view import NoSuchName, View

ITEM_FIELDS = ("identifier", "title", "attributes", "event", "kind", "value", "time", "index")
# The most memory for kept texts of one kind; what an entry takes besides its letters; and the most that a letter takes.
_MOST_BYTES, _BYTES_OF_ENTRY, _BYTES_OF_LETTER = 8 * 2**20, 256, 4


class Named(View):
    """Values by names of the user's own choice."""

    def __init__(self, values: Mapping[str, Any], owner: str) -> None:
        """`owner` is the word for them in a template."""
        self._values = values
        self.subject = owner

    def look_up(self, name: str) -> Any:
        """The value of this name."""
        return self._values.get(name)

    def describe(self, name: str) -> str:
        """What is missing."""
        return f"{self.subject}.{name}, and the template has no default for it"

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values


class Lists(View):
    """The lists of a user's events by kind, of which the prompt's file says which there are."""

    subject = "behaviours"

    def __init__(self, lists: Mapping[str, Any]) -> None:
        self._lists = lists

    def look_up(self, name: str) -> Any:
        """The list of this kind."""
        if name not in self._lists:
            declared = ", ".join(self._lists) or "none"
            hint = ", and a kind that is no plain name is read as behaviours['add-to-cart']" * any(map(_is_odd, self._lists))
            raise NoSuchName(f"there is no behaviours.{name}: {declared} is declared under behaviours{hint}")
        return self._lists[name]


def _is_odd(kind: str) -> bool:
    return not kind.isidentifier()


class ItemTexts:
    """Identifiers and titles of a catalog as texts; those that were asked for last are kept, for they are put together again and again."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        titles = catalog.attributes.get(TITLE)
        longest_title = 0 if titles is None else int(titles.values.lengths.max(initial=0))
        longest_identifier = catalog.identifier_length * max(map(len, catalog.tokens), default=0)
        self.identifier = lru_cache(_kept(longest_identifier))(lambda item: "".join(catalog.identifier(item)))
        self.title = lru_cache(_kept(longest_title))(catalog.title)


def _kept(longest: int) -> int:
    """How many texts of at most so many letters are kept."""
    return _MOST_BYTES // (_BYTES_OF_ENTRY + _BYTES_OF_LETTER * longest)


class ItemAttributes(View):
    """The attributes of an item in the catalog."""

    subject = "attributes"

    def __init__(self, catalog: Catalog, item: int) -> None:
        self._catalog = catalog
        self._item = item

    def look_up(self, name: str) -> Any:
        """The value of an attribute."""
        if (column := self._catalog.attributes.get(name)) is None:
            raise NoSuchName(f"the catalog has no attribute {name!r}: it has {', '.join(self._catalog.attributes) or 'none'}")
        return column.value(self._item)

    def describe(self, name: str) -> str:
        """What is missing."""
        return f"attribute {name!r} of item {self._catalog.item_ids[self._item]!r}, and the template has no default for it"


class ShownItem(View):
    """One item of a list, as a template sees it; as a text, also in comparisons, it is its identifier."""

    __slots__ = ("_event", "_index", "_texts")

    def __init__(self, texts: ItemTexts, event: UserEvent, index: int) -> None:
        """`index` is its place in its list, from 1."""
        self._texts = texts
        self._event = event
        self._index = index

    def __str__(self) -> str:
        return self._texts.identifier(self._event.item)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, str | ShownItem) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        # Python's text of a list is made of these.
        raise NoSuchName("a list of items is no text: join it, as in history | join(', ')")

    def look_up(self, name: str) -> Any:
        """The value of a field."""
        event = self._event
        match name:
            case "identifier":
                return str(self)
            case "title":
                return self._texts.title(event.item)
            case "attributes":
                return ItemAttributes(self._texts.catalog, event.item)
            case "event":
                return Named(event.attributes, "event")
            case "kind":
                return event.kind
            case "value":
                return event.value
            case "time":
                return event.time
            case "index":
                return self._index
        raise NoSuchName(f"an item has no {name!r}: it has {', '.join(ITEM_FIELDS)}")

    def describe(self, name: str) -> str:
        """What is missing."""
        return f"{name} of item {self._texts.catalog.item_ids[self._event.item]!r}, and the template has no default for it"


def shown(texts: ItemTexts, events: Sequence[UserEvent]) -> list[ShownItem]:
    """Events in the order in which a template shows them."""
    return [ShownItem(texts, event, index) for index, event in enumerate(events, 1)]
