"""*Try it*: a user, their history, a list, and what changes in it when the history or the request does."""

from collections.abc import Awaitable
from functools import partial

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError, NotFound
from server.console.elements import Answer, card, code, facts, focus, icon_button, parts, show_error, tag
from server.console.lists.form import RequestForm
from server.console.lists.item_list import ADD, show_items
from server.console.lists.item_search import ItemSearch
from server.console.lists.question import Question, changes
from server.console.lists.scores import Scores
from server.console.lists.user_form import UserForm
from server.console.newest import Newest
from server.console.visits import Visits
from server.schemas.recommendations import RecommendationAnswer

SHOWN_EVENTS = 12
NOBODY = "Choose a user to see their list, or add an item to the history."


class TryIt:
    """One visit of the page."""

    def __init__(self, client: AsyncAtspeedClient, visits: Visits, question: Question) -> None:
        self._client, self._visits, self._question = client, visits, question
        self._before: RecommendationAnswer | None = None
        self._lists, self._histories = Newest(), Newest()
        self._all_events = False
        # Why what is stored of the user can't be read here; empty if it can.
        self._unread = ""

    def build(self) -> None:
        """Make the page's parts, and fill them as soon as it is shown."""
        with tag("div", "", "aside"):
            with tag("div", "", "stack"):
                with card("User"):
                    self._user = UserForm(self._visits, self._choose, self._question.user_id)
                with card("History"):
                    self._history = tag("div", "", "stack")
                    ItemSearch(self._client, "Add an item by id or title", ADD, self._add)
                with card("Scores of items you pick"):
                    self._scores = Scores(self._client, self._question)
            with tag("div", "", "stack"):
                with card("Request"):
                    self._form = RequestForm(self._client, self._question, self._ask)
                with tag("section", "", "card", aria_label="List", aria_live="polite"):
                    self._list = tag("div", "", "stack")
        with self._list:
            tag("p", NOBODY, "empty")
        ui.timer(0, self._open, once=True)

    async def _open(self) -> None:
        await self._form.load()
        if self._question.is_ready:
            await self._choose(self._question.user_id, keep=self._question.changed)
            await self._user.offer()

    async def _choose(self, user_id: str, *, keep: bool = False) -> None:
        """Take a user, with the stored history unless there is one to keep."""
        question = self._question
        if not keep:
            if user_id != question.user_id:
                # What is new in a list, or has gone, is told beside another one of the same user.
                self._before = None
            question.user_id, question.changed, question.events, question.profile = user_id, False, [], None
            self._all_events, self._unread = False, ""
            is_newest = self._histories.ask()
            self._expect()
            history, unread = await _stored(self._client.history(user_id))
            profile, profile_unread = await _stored(self._client.profile(user_id))
            if not is_newest():
                return
            question.events = [] if history is None else history.events
            question.profile = None if profile is None else profile.profile
            self._unread = unread or profile_unread
        await self._ask()

    def _expect(self) -> None:
        """Take away what is shown of another user."""
        self._lists.ask()
        self._history.clear()
        self._scores.clear()
        self._list.style("opacity: 0.6")

    def _show_history(self, left_out: int | None = None) -> None:
        """Show the history; `left_out` is the place of an event that was just left out, whose button had the focus."""
        buttons: dict[int, ui.button] = {}
        self._history.clear()
        events = self._question.events
        shown = len(events) if self._all_events else min(SHOWN_EVENTS, len(events))
        with self._history:
            if self._unread:
                tag("p", f"What is stored of this user is not shown, and no part of a changed history. {self._unread}", "told")
            if self._question.changed:
                with tag("p", "", "told line between"):
                    tag("span", "Changed for this page only: nothing is stored.")
                    if self._question.user_id:
                        ui.button("Undo", on_click=lambda: self._choose(self._question.user_id)).props("flat dense")
            elif not events and not self._unread:
                tag("p", "No events are stored of this user.", "soft")
            with tag("ul", "", "items plain"):
                for place in reversed(range(len(events) - shown, len(events))):
                    event = events[place]
                    name = event.title or event.item_id
                    with tag("li"):
                        with tag("div", "", "what"):
                            tag("span", name, "title")
                            tag("span", f" {event.kind}" if event.kind else "", "soft small")
                        buttons[place] = icon_button("close", f"Leave out {name}", partial(self._forget, place))
            if shown < len(events):
                ui.button(f"All {len(events)} events", on_click=self._show_all).props("flat dense")
        if left_out is not None and buttons:
            # The event before it stands below it.
            focus(buttons[min(buttons, key=lambda place: abs(place - left_out + 1))])

    def _show_all(self) -> None:
        self._all_events = True
        self._show_history()

    async def _forget(self, place: int) -> None:
        self._histories.ask()
        self._question.forget(place)
        await self._ask(left_out=place)

    async def _add(self, item_id: str, title: str | None) -> None:
        # A stored history that is still to come is no longer waited for: this is another one.
        self._histories.ask()
        self._question.add(item_id, title)
        await self._ask()

    async def _ask(self, *, left_out: int | None = None) -> None:
        """Ask for the list of the question as it is, and show it; `left_out` as of `_show_history`."""
        self._show_history(left_out)
        is_newest = self._lists.ask()
        if not self._question.is_ready:
            self._scores.clear()
            with self._list.style(replace="").clear():
                tag("p", NOBODY, "empty")
            return
        # The button that began this may be gone by now.
        with self._list:
            ui.navigate.history.replace(self._question.address("/"))
        self._list.style("opacity: 0.6")
        body = self._question.body
        try:
            answer = await self._client.recommend(**body)
        except AtspeedError as error:
            if is_newest():
                self._fail(error)
                self._scores.clear()
            await self._visits.refused(body, error)
            return
        if is_newest():
            self._show(answer)
            self._before = answer
            await self._scores.ask()
        await self._visits.answered(body, answer)

    def _fail(self, error: AtspeedError) -> None:
        with self._list.style(replace="").clear():
            show_error(str(error))
            ui.button("Try again", on_click=self._again).props("outline dense")

    async def _again(self) -> None:
        """Ask once more, for what could not be read of the user as well."""
        await self._choose(self._question.user_id, keep=self._question.changed or not self._unread)

    def _show(self, answer: RecommendationAnswer) -> None:
        before = [] if self._before is None else self._before.items
        said, gone = changes([item.item_id for item in before], [item.item_id for item in answer.items])
        with self._list.style(replace="").clear():
            with tag("div", "", "line between"):
                tag("h2", f"{len(answer.items)} {'popular ' if answer.source else ''}items")
                ui.link("Why this list?", self._question.address("/why"))
            if answer.note:
                tag("p", answer.note, "told")
            show_items(answer.items, said if before else {}, self._add)
            if gone:
                titles = {item.item_id: item.title or item.item_id for item in before}
                tag("p", "Gone since the last list: " + ", ".join(titles[item] for item in gone), "soft small")
            _show_time(answer)
            with tag("details"):
                tag("summary", "As curl, as Python")
                code(self._question.curl(self._client.url, keyed=self._client.has_key), "curl")
                code(self._question.python(self._client.url), "Python")


async def _stored(work: Awaitable[Answer]) -> tuple[Answer | None, str]:
    """What is stored of a user, None if nothing is, and why it can't be read, if it can't: a list may be had all the same."""
    try:
        return await work, ""
    except NotFound:
        return None, ""
    except AtspeedError as error:
        return None, str(error)


def _show_time(answer: RecommendationAnswer) -> None:
    """Where the time went, and what the list took."""
    timing, usage = answer.timing_ms, answer.usage
    rest = max(timing.total - timing.history - timing.queue - timing.engine, 0.0)
    tag("h3", f"{timing.total:.1f} ms")
    parts("Time", [("engine", timing.engine), ("queue", timing.queue), ("history", timing.history), ("rest", rest)], "ms")
    facts(
        [
            ("Model", f"{answer.model}, {answer.precision}{', exact' if answer.exact else ''}"),
            ("Catalog", answer.catalog_version),
            ("Verification", answer.verification.value + (f", seed {answer.seed}" if answer.seed is not None else "")),
            ("Plan", usage.plan),
            ("Forwards", f"{usage.target_forwards} of the target, {usage.accepted_steps} saved by {usage.drafted_nodes} drafted nodes"),
            ("Prompt", f"{usage.prompt_tokens} tokens, {usage.cached_tokens} of them cached"),
        ]
    )
