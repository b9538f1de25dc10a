"""Figures that are looked at every few seconds change where they stand, so that neither focus nor place in them is lost."""

from typing import cast

from nicegui import Client
from nicegui.elements.mixins.text_element import TextElement

from server.client import AsyncAtspeedClient, AtspeedError, Denied
from server.console.operate.live import Live
from tests.server.console.tab import texts
from tests.server.console.test_readings import exposition

DENIED = Denied(403, "urn:atspeed:key-forbids", "Key forbids", "This needs a key with the scope operate.", None, None)


class Metrics:
    """Answers one thing after the other."""

    def __init__(self, *answers: str | AtspeedError) -> None:
        self._answers = iter(answers)

    async def metrics(self) -> str:
        answer = next(self._answers)
        if isinstance(answer, AtspeedError):
            raise answer
        return answer


def cells(page: Client) -> list[str]:
    """The last row of the table: its name, lists of late, lists since the start."""
    return [each.text for each in page.elements.values() if isinstance(each, TextElement) and each.tag == "td"][-3:]


async def test_what_has_the_focus_stays_from_look_to_look(shown: Client):
    api = Metrics(exposition(0.01), exposition(0.01, 0.2), DENIED, DENIED, exposition(0.01, 0.2, 0.2))
    with shown:
        live = Live(cast(AsyncAtspeedClient, api))
        await live._look()
        (place,) = (each for each in shown.elements.values() if "tabindex" in each.props)
        assert cells(shown) == ["lists", "0", "1"]
        await live._look()
        assert cells(shown) == ["lists", "1", "2"]
        (alert,) = (each for each in shown.elements.values() if each.props.get("role") == "alert")
        assert not alert.visible
        for _ in range(2):
            await live._look()
            assert (alert.visible, live._shown.visible) == (True, False)
            assert DENIED.detail in texts(shown)
        await live._look()
    assert (alert.visible, live._shown.visible) == (False, True)
    assert DENIED.detail not in texts(shown)
    assert cells(shown) == ["lists", "2", "3"]
    assert {place.id, alert.id} <= shown.elements.keys()
