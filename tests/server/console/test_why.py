"""The page of a search: what is chosen on it changes the pictures, and nothing else."""

from typing import Any, cast

from nicegui import Client

from server.client import AsyncAtspeedClient
from server.console.lists.question import Question
from server.console.lists.tree import Shown
from server.console.lists.why import Why
from server.schemas.explanations import ExplainedAnswer
from tests.server.console.tab import Tab, texts, visits_of


class Explainer:
    """Explains the list of the API's example, as if it had been searched among fresh items as well."""

    async def explain(self, **_: Any) -> ExplainedAnswer:
        answer = ExplainedAnswer.model_validate(cast(Any, ExplainedAnswer.model_config["json_schema_extra"])["examples"][0])
        assert answer.explanation is not None
        answer.explanation.fresh_levels = answer.explanation.levels
        return answer


async def why(shown: Client) -> Why:
    """A page with a list."""
    page = Why(cast(AsyncAtspeedClient, Explainer()), visits_of(Tab()), Question())
    page.build()
    await page._choose("ann")
    return page


async def test_what_is_chosen_changes_the_pictures_and_nothing_else(shown: Client):
    with shown:
        page = await why(shown)
        before = set(shown.elements)
        ((item, button),) = page._buttons
        pictures = [tree.picture for tree in page._trees]
        assert [each.content.count("chosen") for each in pictures] == [0, 0]
        page._stress(item)
        stressed = [each.content.count("chosen") for each in pictures]
        assert min(stressed) > 0
        assert (button.props["aria-pressed"], "outline" in button.props) == ("true", False)
        page._trees[0].toggle.set_value(Shown.ALL)
        assert [tree.toggle.value for tree in page._trees] == [Shown.ALL, Shown.ALL]
        assert [each.content.count("chosen") for each in pictures] == stressed
        page._stress(item)
    assert [each.content.count("chosen") for each in pictures] == [0, 0]
    assert (button.props["aria-pressed"], "outline" in button.props) == ("false", True)
    assert set(shown.elements) == before


async def test_a_list_is_kept_with_the_request_that_it_answers(shown: Client):
    with shown:
        page = await why(shown)
        # The answer to it is still to come when the list is kept.
        page._question.options["beam_width"] = 20
        page._pin()
        assert "asked: beam_width" not in texts(shown)
        await page._ask()
    assert "asked: beam_width" in texts(shown)
