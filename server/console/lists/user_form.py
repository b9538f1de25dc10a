"""The choice of a user: typed, or one of those that lists were made for in this tab."""

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from server.console.elements import main_button, tag
from server.console.visits import Visits

OFFERED = 8


class UserForm:
    """A field for a user's id, and users to choose from."""

    def __init__(self, visits: Visits, choose: Callable[[str], Awaitable[None]], user_id: str = "") -> None:
        """`user_id` is what the field holds at first."""
        self._visits, self._choose = visits, choose
        with tag("form", "", "line").on("submit.prevent", self._submit):
            self._field = ui.input("User id", value=user_id).props("outlined dense required").style("flex: 1")
            main_button("Show")
        self._offered = tag("div", "", "line small")
        ui.timer(0, self.offer, once=True)

    async def offer(self) -> None:
        """Show whom there is to choose from."""
        users = await self._visits.users()
        with self._offered.clear():
            for user in users[:OFFERED]:
                button = ui.button(user, on_click=partial(self._take, user)).props('outline dense padding="0 0.6rem"')
                button.props["aria-label"] = f"User {user}"

    async def _submit(self) -> None:
        if user := (self._field.value or "").strip():
            await self._take(user)

    async def _take(self, user: str) -> None:
        self._field.set_value(user)
        await self._choose(user)
        await self.offer()
