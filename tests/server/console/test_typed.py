"""What is typed into fields of the console: values that can be sent, or a sentence."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.client.operation import as_json
from server.console.lists.form import caps_of, caps_text, widths_of
from server.console.lists.question import Question
from server.console.operate.new_items import new_item
from server.console.operate.versions import when
from server.console.typed import json_of, numbers_of

NONE = ["{", '{"x": NaN}', "-Infinity", "1e999", r'{"x": "\ud800"}', r'{"\udc00": 1}', "9" * 5000, "[" * 100_000, ""]


@pytest.mark.parametrize("text", NONE)
def test_what_has_no_json_is_refused_in_a_sentence(text: str):
    with pytest.raises(ValueError, match=r"^This is no JSON: .+\.$") as refused:
        json_of(text)
    assert len(str(refused.value)) < 200
    if text:
        with pytest.raises(ValueError, match="no JSON"):
            new_item("new", "", "<a_1>", text)


def test_what_is_taken_can_be_sent_and_stand_in_an_address():
    question = Question("ann")
    question.options["context"] = json_of('{"x": [1, 2.5, "ü", "\\ud83d\\ude00", null, 12345678901234567890]}')
    assert as_json(question.body)
    assert "ask=" in question.address("/")


@pytest.mark.parametrize(
    ("read", "text"), [(caps_of, "brand=" + "9" * 5000), (caps_of, "=2"), (caps_of, "brand"), (widths_of, "9" * 5000), (widths_of, "-1")]
)
def test_numbers_that_are_none_or_that_nobody_can_convert_are_refused(read: Callable[[str], Any], text: str):
    with pytest.raises(ValueError, match=r"no whole number|has an attribute"):
        read(text)


def test_caps_and_widths_are_what_is_typed():
    caps = [{"attribute": "brand", "at_most": 2}, {"attribute": "genres", "at_most": 4}]
    assert caps_of("brand=2, genres = 4, ") == caps
    assert caps_of(caps_text(caps)) == caps
    assert (widths_of("16, 64,200"), widths_of("")) == ([16, 64, 200], [])


@pytest.mark.parametrize("place", ["0.1 nan", "0.1, inf", "1e999 2"])
def test_an_embedding_is_finite(place: str):
    with pytest.raises(ValueError, match="finite"):
        new_item("new", "", place, "")
    assert new_item("new", "", "0.1, 2", "")["embedding"] == [0.1, 2.0]
    assert new_item("new", "", "<a_1> 2", "")["identifier"] == ["<a_1>", "2"]
    assert numbers_of([]) == []


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_a_time_says_its_zone():
    if time.tzname[0] != "JST":
        pytest.skip("this machine has no zones")
    assert when(0.0) == "1970-01-01 09:00:00 JST"
