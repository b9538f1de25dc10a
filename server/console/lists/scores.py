"""What the model makes of items that a person picks, after the same history as the list's."""

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import show_error, table, tag
from server.console.lists.item_search import ItemSearch
from server.console.lists.question import Question
from server.console.newest import Newest


class Scores:
    """The items that were picked, and their scores."""

    def __init__(self, client: AsyncAtspeedClient, question: Question) -> None:
        self._client, self._question = client, question
        self._picked: dict[str, str] = {}
        self._answers = Newest()
        ItemSearch(client, "Score an item by id or title", "Score {}", self._pick)
        self._shown = tag("div", "", "stack")

    async def _pick(self, item_id: str, title: str | None) -> None:
        self._picked[item_id] = title or item_id
        await self.ask()

    def clear(self) -> None:
        """Take the scores away, which are of another history; the items stay picked."""
        self._answers.ask()
        self._shown.clear()

    async def ask(self) -> None:
        """Score the items for the question as it is; nothing happens until there are some."""
        if not (self._picked and self._question.is_ready):
            return
        is_newest = self._answers.ask()
        try:
            answer = await self._client.score(list(self._picked), **self._question.scoring)
        except AtspeedError as error:
            if is_newest():
                self._fail(error)
            return
        if not is_newest():
            return
        with self._shown.clear():
            lines = sorted(answer.items, key=lambda item: item.rank)
            rows = [(str(item.rank), self._picked[item.item_id], item.item_id, f"{item.score:.2f}") for item in lines]
            table("Scores", ("Rank", "Item", "Id", "Log-probability"), rows)
            if answer.note:
                tag("p", answer.note, "told")

    def _fail(self, error: AtspeedError) -> None:
        with self._shown.clear():
            show_error(str(error))
