"""Times of events: seconds or RFC 3339 text, and a sentence for anything else."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from server.schemas.timestamp import LAST_SECOND, Timestamp
from server.schemas.users import EventsBody

TIMESTAMPS: TypeAdapter[float] = TypeAdapter(Timestamp)
# Offsets of real zones are whole minutes.
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=zones)


@given(moments, st.sampled_from("T t"), st.booleans())
def test_a_text_is_the_moment_that_it_names(moment: datetime, separator: str, lower: bool):
    text = moment.isoformat(separator)
    if moment.utcoffset() == timedelta(0):
        text = text.replace("+00:00", "z" if lower else "Z")
    assert TIMESTAMPS.validate_python(text) == moment.timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-28T22:15:00Z", 1795904100),
        ("2026-11-28T23:15:00+01:00", 1795904100),
        ("2026-11-28 17:15:00-05:00", 1795904100),
        ("2026-11-28T22:15:00.25Z", 1795904100.25),
        ("2026-11-28T22:15:00.123456789Z", 1795904100.123456),
    ],
)
def test_texts_of_rfc_3339(text: str, seconds: float):
    assert TIMESTAMPS.validate_python(text) == seconds


@given(moments, st.sampled_from([("milliseconds", 1000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)]))
@example(datetime(2026, 11, 28, tzinfo=UTC), ("milliseconds", 1000))
def test_a_smaller_unit_is_refused_with_its_name_unless_it_may_be_seconds(moment: datetime, unit: tuple[str, int]):
    name, scale = unit
    value = int(moment.timestamp()) * scale
    # A time soon after 1970 in a small unit is one of later days in a larger one.
    if value <= LAST_SECOND * (scale // 1000):
        return
    with pytest.raises(ValidationError) as caught:
        TIMESTAMPS.validate_python(value)
    shown = datetime.fromtimestamp(int(moment.timestamp()), UTC).isoformat().replace("+00:00", "Z")
    expected = f"must be in seconds since 1970: {value} looks like {name} ({shown}), so divide it by {scale:,}"
    assert caught.value.errors()[0]["msg"] == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "2026-11-28T22:15:00",
            "has no offset from UTC: end it with Z for UTC, or with an offset such as +02:00, as in 2026-11-28T22:15:00Z",
        ),
        ("2026-11-28", "must be seconds since 1970, or a date and time of RFC 3339 such as 2026-11-28T22:15:00Z"),
        ("2026-W48-6T22:15:00Z", "must be seconds since 1970, or a date and time of RFC 3339 such as 2026-11-28T22:15:00Z"),
        ("1795904100", "must be seconds since 1970, or a date and time of RFC 3339 such as 2026-11-28T22:15:00Z"),
        ("٢٠٢٦-11-28T22:15:00Z", "must be seconds since 1970, or a date and time of RFC 3339 such as 2026-11-28T22:15:00Z"),
        ("2026-02-30T22:15:00Z", "is no date and time that there is: write it as in 2026-11-28T22:15:00Z"),
        ("1969-12-31T23:59:59Z", "must not lie before 1970"),
        ("0001-01-01T00:00:00+23:59", "must not lie before 1970"),
        ("9999-12-31T23:59:59-23:59", "Input should be less than or equal to 253402300799"),
        (-1, "Input should be greater than or equal to 0"),
        (10**30, "Input should be less than or equal to 253402300799"),
        (True, "Input should be a valid number"),
    ],
)
def test_what_is_no_time_gets_a_sentence(value: object, sentence: str):
    with pytest.raises(ValidationError) as caught:
        TIMESTAMPS.validate_python(value, strict=True)
    assert caught.value.errors()[0]["msg"] == sentence


def test_an_event_holds_seconds_whichever_way_it_was_sent():
    events = [{"item_id": "a", "timestamp": "2026-11-28T23:15:00+01:00"}, {"item_id": "a", "timestamp": 1795904100}, {"item_id": "a"}]
    assert [event.timestamp for event in EventsBody.model_validate({"events": events}).events] == [1795904100.0, 1795904100.0, None]
