"""Lists of items: what is recommended, with bars for scores, and what is new in it."""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from server.console.elements import bar, icon_button, tag
from server.schemas.recommendations import RecommendedItem

ADD = "Add {} to the history"

# Takes an item's id and title.
AddItem = Callable[[str, str | None], Awaitable[None]]


def show_items(items: Sequence[RecommendedItem], said: dict[str, str], add: AddItem | None = None) -> None:
    """A list, with bars for how probable each item is beside the most probable one.

    Args:
        said: what to say of items, by id: `new`, or how they moved.
        add: what the button beside each item does; None for no buttons.
    """
    best = max((item.score for item in items), default=0.0)
    with tag("ol", "", "items", aria_label="Recommended items"):
        for item in items:
            name, change = item.title or item.item_id, said.get(item.item_id, "")
            with tag("li", "", "is-new" if change == "new" else ""):
                tag("span", str(item.rank), "rank")
                image = (item.attributes or {}).get("image")
                if isinstance(image, str):
                    tag("img", "", "image", src=image, alt="", loading="lazy")
                with tag("div", "", "what"):
                    tag("span", name, "title")
                    if change:
                        tag("span", change, "badge new" if change == "new" else "badge still")
                    for label in _labels(item):
                        tag("span", label, "badge")
                    tag("div", f"{item.item_id} · {' '.join(item.identifier)}", "soft mono")
                with tag("div", "", "score"):
                    bar(math.exp(item.score - best), f"log-probability {item.score:.2f}")
                    tag("span", f"{item.score:.2f}", "number")
                if add is not None:
                    icon_button("add", ADD.format(name), partial(add, item.item_id, item.title))


def _labels(item: RecommendedItem) -> list[str]:
    return (["fresh"] if item.fresh else []) + ([item.source] if item.source else [])
