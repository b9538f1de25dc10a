"""*Why this list*: the prefixes that a search considered, as a tree, and two lists side by side."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import card, show_error, table, tag
from server.console.lists.form import RequestForm
from server.console.lists.item_list import show_items
from server.console.lists.question import Question, changes
from server.console.lists.tree import Shown, draw
from server.console.lists.user_form import UserForm
from server.console.newest import Newest
from server.console.visits import Visits
from server.schemas.explanations import ExplainedAnswer, ExplainedLevelAnswer, ExplanationAnswer
from server.schemas.recommendations import RecommendedItem

PATH = "/why"
OTHERS = 8


@dataclass(frozen=True)
class _Tree:
    """A search on the page: its levels, the ways to the list, how much is shown, and the picture."""

    levels: list[ExplainedLevelAnswer]
    paths: list[list[int]]
    toggle: ui.toggle
    picture: ui.html


class Why:
    """One visit of the page."""

    def __init__(self, client: AsyncAtspeedClient, visits: Visits, question: Question) -> None:
        self._client, self._question = client, question
        self._answer: ExplainedAnswer | None = None
        self._pinned: ExplainedAnswer | None = None
        # What the two lists were asked for with.
        self._body: dict[str, Any] = {}
        self._pinned_body: dict[str, Any] = {}
        self._shown = Shown.PATHS
        self._chosen: RecommendedItem | None = None
        self._explanations = Newest()
        self._visits = visits
        # What says which item is chosen, and how many prefixes are shown.
        self._buttons: list[tuple[RecommendedItem, ui.button]] = []
        self._trees: list[_Tree] = []

    def build(self) -> None:
        """Make the page's parts, and fill them as soon as it is shown."""
        with card("Request"):
            with tag("div", "", "line"):
                self._user = UserForm(self._visits, self._choose, self._question.user_id)
            self._history_note = tag("p", "", "soft small")
            self._form = RequestForm(self._client, self._question, self._ask)
        self._result = tag("div", "", "stack", aria_live="polite")
        with self._result:
            tag("p", "Choose a user, or come here from a list.", "empty")
        ui.timer(0, self._open, once=True)

    async def _open(self) -> None:
        await self._form.load()
        await self._ask()
        await self._user.offer()

    async def _choose(self, user_id: str) -> None:
        self._question.user_id, self._question.changed, self._question.events = user_id, False, []
        await self._ask()

    async def _ask(self) -> None:
        """Ask for the explanation of the question as it is, and show it."""
        changed = f"With a changed history of {len(self._question.events)} items, as on the page before."
        self._history_note.set_text(changed if self._question.changed else "")
        if not self._question.is_ready:
            return
        with self._result:
            ui.navigate.history.replace(self._question.address(PATH))
        is_newest = self._explanations.ask()
        self._result.style("opacity: 0.6")
        body = self._question.body
        try:
            answer = await self._client.explain(others=OTHERS, **body)
        except AtspeedError as error:
            if is_newest():
                with self._result.style(replace="").clear():
                    show_error(str(error))
            await self._visits.refused(body, error)
            return
        if is_newest():
            self._answer, self._body, self._chosen = answer, body, None
            self._show()
        await self._visits.answered(body, answer)

    def _show(self) -> None:
        answer = self._answer
        assert answer is not None
        self._buttons, self._trees = [], []
        with self._result.style(replace="").clear():
            if answer.note:
                tag("p", answer.note, "told")
            if self._pinned is None:
                self._show_list(answer)
            else:
                self._show_both(self._pinned, answer)
            if (explanation := answer.explanation) is None:
                tag("p", "Popular items need no search, so there is no tree.", "told")
            else:
                self._show_tree(explanation, explanation.levels, "The search")
                if explanation.fresh_levels:
                    self._show_tree(explanation, explanation.fresh_levels, "The search among fresh items")
        self._draw()

    def _draw(self) -> None:
        """Say which item is chosen, and draw its way. All else stays: the focus, a table that was opened, how far one was scrolled."""
        assert self._answer is not None
        place = None if self._chosen is None else _place(self._answer, self._chosen)
        for item, button in self._buttons:
            pressed = self._chosen is not None and self._chosen.item_id == item.item_id
            look, other = ("unelevated", "outline") if pressed else ("outline", "unelevated")
            button.props(look, remove=other).props["aria-pressed"] = "true" if pressed else "false"
        for tree in self._trees:
            tree.toggle.set_value(self._shown)
            tree.picture.set_content(draw(tree.levels, tree.paths, self._shown, () if place is None else tree.paths[place]))

    def _show_list(self, answer: ExplainedAnswer) -> None:
        with card("The list"):
            tag("p", "Choose an item to see its way through the tree.", "soft small")
            with tag("div", "", "line"):
                for item in answer.items:
                    button = ui.button(f"{item.rank} {item.title or item.item_id}", on_click=partial(self._stress, item))
                    self._buttons.append((item, button.props('dense no-caps padding="0.1rem 0.6rem"')))
            with tag("div", "", "line"):
                ui.button("Keep this list to compare", icon="push_pin", on_click=self._pin).props("flat dense")

    def _stress(self, item: RecommendedItem) -> None:
        self._chosen = None if self._chosen is not None and self._chosen.item_id == item.item_id else item
        self._draw()

    def _pin(self) -> None:
        self._pinned, self._pinned_body = self._answer, self._body
        self._show()

    def _unpin(self) -> None:
        self._pinned = None
        self._show()

    def _show_both(self, kept: ExplainedAnswer, now: ExplainedAnswer) -> None:
        """Two lists side by side, and what is different between them."""
        said, gone = changes([item.item_id for item in kept.items], [item.item_id for item in now.items])
        left = dict.fromkeys(gone, "gone")
        with card("Two lists"):
            with tag("div", "", "line between"):
                same = "The lists are equal." if not said and not gone else f"{len(gone)} of {len(kept.items)} items are others."
                tag("p", same)
                ui.button("Let go", icon="push_pin", on_click=self._unpin).props("flat dense")
            with tag("div", "", "columns"):
                for title, answer, labels in (("Kept", kept, left), ("Now", now, said)):
                    with tag("div", "", "stack"):
                        tag("h3", title)
                        show_items(answer.items, labels)
            table("What the two lists took", ["What", "Kept", "Now"], _compared(kept, self._pinned_body, now, self._body))

    def _show_tree(self, told: ExplanationAnswer, levels: list[ExplainedLevelAnswer], title: str) -> None:
        with card(title):
            with tag("div", "", "line between"):
                toggle = ui.toggle(
                    {each: each.value for each in Shown}, value=self._shown, on_change=lambda event: self._show_more(event.value)
                ).props("no-caps dense unelevated padding='0.2rem 0.7rem' toggle-text-color=on-accent")
                with tag("div", "", "legend"):
                    for name, mark in (("drafted and accepted", "mark accepted"), ("drafted, not needed", "mark")):
                        with tag("span", "", "line"):
                            tag("span", "", mark, aria_hidden="true")
                            tag("span", name)
            with tag("div", "", "scroll", tabindex="0", role="region", aria_label=f"{title} as a tree"):
                # All texts in it are escaped where it is made.
                self._trees.append(_Tree(levels, told.paths, toggle, ui.html(sanitize=False)))
            table("Levels", ["Level", "Forward", "Considered", "Drafted", "Used", "Accepted"], [_level(level) for level in levels])
            with tag("details"):
                tag("summary", "All prefixes, as a table")
                rows = [row for level in levels for row in _prefixes(level)]
                table("Prefixes", ["Level", "Token", "After", "Log-probability", "Rank", "Draft", "Items"], rows)
            if told.truncated:
                tag("p", f"Of what was cut, each level tells the {told.others} most likely.", "soft small")

    def _show_more(self, shown: Shown) -> None:
        self._shown = shown
        self._draw()


def _place(answer: ExplainedAnswer, item: RecommendedItem) -> int:
    """Place of an item's identifier among those of the list."""
    return sorted({each.rank for each in answer.items}).index(item.rank)


def _compared(kept: ExplainedAnswer, kept_body: dict[str, Any], now: ExplainedAnswer, body: dict[str, Any]) -> list[list[str]]:
    rows = [
        (f"asked: {name}", str(kept_body.get(name, "")), str(body.get(name, "")))
        for name in sorted({*kept_body, *body} - {"history"})
        if kept_body.get(name) != body.get(name)
    ]
    for name, tell in (
        ("Catalog", lambda answer: answer.catalog_version),
        ("Verification", lambda answer: answer.verification.value),
        ("Plan", lambda answer: answer.usage.plan),
        ("Forwards of the target", lambda answer: str(answer.usage.target_forwards)),
        ("Levels accepted", lambda answer: str(answer.usage.accepted_steps)),
        ("Prefixes drafted", lambda answer: str(answer.usage.drafted_nodes)),
        ("Time", lambda answer: f"{answer.timing_ms.total:.1f} ms"),
    ):
        rows.append((name, tell(kept), tell(now)))
    return [list(row) for row in rows]


def _level(level: ExplainedLevelAnswer) -> list[str]:
    accepted = "yes, the next level needed no forward" if level.accepted else "no"
    return [str(level.depth), str(level.forward), f"{level.considered:,}", str(level.drafted), str(level.used), accepted]


def _prefixes(level: ExplainedLevelAnswer) -> list[list[str]]:
    return [
        [
            str(level.depth),
            node.token,
            str(node.parent),
            f"{node.log_prob:.3f}",
            str(node.rank) if node.rank is not None else "cut",
            "accepted" if node.accepted else "drafted" if node.drafted else "",
            ", ".join(item.title or item.item_id for item in node.items or []) or f"{node.items_below:,}",
        ]
        for node in level.nodes
    ]
