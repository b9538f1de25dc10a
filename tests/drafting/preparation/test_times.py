"""Units of time are told from all numbers together, and dates in any form are the seconds that they are."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.array_types import DoubleArray
from drafting.errors import InteractionError
from drafting.preparation import times
from drafting.preparation.settings import PrepareSettings
from drafting.preparation.times import _one_by_one, found_unit, in_seconds, parsed, strange

PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
dates = st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(lambda date: date.replace(microsecond=0))


@given(st.lists(dates, min_size=1, max_size=8), st.sampled_from(sorted(PER_SECOND)), st.booleans())
def test_the_unit_of_dates_is_found(found: list[datetime], unit: str, as_texts: bool) -> None:
    seconds = [int(date.timestamp()) for date in found]
    numbers = [second * PER_SECOND[unit] for second in seconds]
    read, dated = parsed(pa.array(list(map(str, numbers)) if as_texts else numbers))
    assert not dated.any()
    chosen = found_unit(read)
    assert (chosen.name, chosen.dated) == (unit, True)
    assert in_seconds(read, chosen) == pytest.approx(seconds, abs=1e-5)
    assert strange(read, chosen) == 0


@given(st.lists(dates, min_size=1, max_size=8), st.sampled_from(["T", " "]), st.sampled_from(["", "Z", "+02:00", "mixed"]), st.booleans())
def test_iso_dates_are_their_seconds(found: list[datetime], between: str, zone: str, fraction: bool) -> None:
    texts = []
    for number, date in enumerate(found):
        here = date.astimezone(timezone(timedelta(hours=2))) if zone == "+02:00" else date
        text = here.strftime(f"%Y-%m-%d{between}%H:%M:%S") + (".25" if fraction else "")
        texts.append(text + (("Z" if number % 2 else "") if zone == "mixed" else zone))
    seconds, dated = parsed(pa.array(texts))
    assert dated.all()
    assert seconds == pytest.approx([date.timestamp() + (0.25 if fraction else 0) for date in found])


@given(st.lists(st.dates(datetime(1900, 1, 1).date(), datetime(2199, 12, 31).date()), min_size=1, max_size=8))
def test_eight_digits_that_are_dates_are_days(found: list) -> None:
    numbers, _ = parsed(pa.array([f"{day:%Y%m%d}" for day in found]))
    unit = found_unit(numbers)
    assert unit.name == "yyyymmdd"
    assert in_seconds(numbers, unit).tolist() == [datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() for day in found]


@pytest.mark.parametrize("day", [20230229, 20231301, 20230100, 18991231, 20230431])
def test_what_is_no_day_is_an_order(day: int) -> None:
    unit = found_unit(np.array([20230101.0, day]))
    assert (unit.name, unit.dated) == ("order", False)
    with pytest.raises(InteractionError, match="no dates of the form yyyymmdd"):
        in_seconds(np.array([day], float), found_unit(np.array([1.0]), "yyyymmdd"))


def test_small_numbers_are_an_order_and_stay() -> None:
    numbers = np.array([0.0, 3, 1, 2])
    unit = found_unit(numbers)
    assert "an order and nothing more" in unit.sentence
    assert in_seconds(numbers, unit) is numbers


def test_one_that_strays_changes_no_unit_and_is_counted() -> None:
    numbers = np.array([1.7e12, 1.6e12, 1.5e9, 1.4e12, 0])
    unit = found_unit(numbers)
    assert unit.name == "milliseconds"
    assert strange(numbers, unit) == 2
    assert unit.sentence == "are milliseconds, as the middle one, 1400000000000, is then in May 2014"


def test_a_unit_that_is_said_is_taken() -> None:
    assert in_seconds(np.array([5.0]), found_unit(np.array([5.0]), "milliseconds")).tolist() == [0.005]
    with pytest.raises(InteractionError, match="There is no unit of time 'years': choose auto, seconds"):
        found_unit(np.array([5.0]), "years")


def test_times_of_parquet_and_of_a_named_form() -> None:
    noon = datetime(2024, 5, 6, 12, tzinfo=UTC)
    for kind in (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms", "Europe/Paris")):
        seconds, dated = parsed(pa.array([noon, None], kind))
        assert (seconds[0], np.isnan(seconds[1]), dated[0]) == (noon.timestamp(), True, True)
    assert parsed(pa.array([noon.date()]))[0].tolist() == [datetime(2024, 5, 6, tzinfo=UTC).timestamp()]
    for kind in (pa.int64(), pa.float64()):
        seconds, dated = parsed(pa.array([20240506120000, None], kind), "%Y%m%d%H%M%S")
        assert (seconds[0], np.isnan(seconds[1]), dated.tolist()) == (noon.timestamp(), True, [True, False])
    seconds, _ = parsed(pa.array(["06/05/2024 12:00", "31/31/2024 1:00"]), "%d/%m/%Y %H:%M")
    assert (seconds[0], np.isnan(seconds[1])) == (noon.timestamp(), True)


NOON = datetime(2024, 5, 6, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "form", "second"),
    [
        ("2024-05-06 12:00:00 UTC", None, NOON),
        ("2024-05-06 12:00:00.25 UTC", None, NOON + 0.25),
        ("2024-05-06T12:00:00 GMT", None, NOON),
        ("2024-05-06 14:00:00+02:00", None, NOON),
        ("2024-05-06 12:00:00", None, NOON),
        ("2024-05-06 14:00:00 CEST", None, None),
        ("31/02/2024", "%d/%m/%Y", None),
        ("6/5/2024 12:00", "%d/%m/%Y %H:%M", NOON),
        ("06/05/2024 12:00", "%d/%m/%Y %H:%M", NOON),
        ("6 may 24 12 pm", "%d %b %y %I %p", NOON),
        ("2024-05-06 12:00:00.25", "%Y-%m-%d %H:%M:%S.%f", NOON + 0.25),
        ("6 May 2024 12", "%e %b %Y %H", NOON),
        ("06/05/2024 9:05:00", "%d/%m/%Y %T", NOON - 175 * 60),
        ("06/05/2024 12:00:00", "%d/%m/%Y %T", NOON),
        ("05/06/24 9:05", "%m/%d/%y %R", NOON - 175 * 60),
        ("2024-5-6 12:00:00", "%F %T", NOON),
        ("5/6/24 12:00:00 PM", "%D %r", NOON),
        ("May 6 2024 12", "%h %d %Y %l", NOON - 12 * 3600),
        ("06.05.2024 9:05", "%d.%m.%Y %k:%M", NOON - 175 * 60),
        ("100%F 2024-05-06 12", "100%%F %F %H", NOON),
        ("2024-05-06T14:00:00+02:00", "%FT%T%z", NOON),
        ("2024-5-6 14:00 +0200", "%F %R %z", NOON),
        ("2024-02-31 14:00 +0200", "%F %R %z", None),
        ("2024-05-06 14:00", "%F %R%z", None),
        ("2024-05-06 14:00 +9900", "%F %R %z", None),
        ("2024-05-06 14:00 +0200", "%Y-%m-%d %H:%M %z", NOON),
        ("2024-05-06 12:00 UTC", "%Y-%m-%d %H:%M UTC", NOON),
        ("2024-05-06 12:00 PST", "%Y-%m-%d %H:%M UTC", None),
        ("2024-05-06 12:00", "%F %R", NOON),
        ("2024-05-06", "%Q", None),
    ],
)
def test_a_text_is_the_same_date_or_none_whatever_stands_beside_it(text: str, form: str | None, second: float | None) -> None:
    for others in ([], ["oops"], ["01/01/2024 01:00", "2024-01-01 00:00:00 UTC", "2024-01-01"]):
        seconds, _ = parsed(pa.array([*others, text]), form)
        assert seconds[-1] == pytest.approx(np.nan if second is None else second, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("%Y %Z", "takes no %Z"),
        ("%%%Z", "takes no %Z"),
        ("%s", "takes no %s: .* --time-unit seconds"),
        ("DD/MM/YYYY", "names no parts of a date"),
    ],
)
def test_forms_that_no_date_can_be_read_by_are_refused(form: str, reason: str) -> None:
    with pytest.raises(InteractionError, match=f"--time-format.* {reason}"):
        PrepareSettings(Path("a"), Path("b"), time_format=form)
    assert PrepareSettings(Path("a"), Path("b"), time_format="%Y %%Z %%s").time_format == "%Y %%Z %%s"


def test_dates_with_a_zone_are_not_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(texts: Any, read_one: Callable[[str], datetime]) -> DoubleArray:
        read.append(len(set(texts.to_pylist())))
        return _one_by_one(texts, read_one)

    monkeypatch.setattr(times, "_one_by_one", counted)
    seconds, _ = parsed(pa.array([f"2024-05-06T14:{minute:02d}:00+02:00" for minute in range(60)]), "%Y-%m-%dT%H:%M:%S%z")
    assert seconds.tolist() == [NOON + minute * 60 for minute in range(60)]
    assert read == [1, 0]


def test_what_is_no_time_is_none() -> None:
    seconds, dated = parsed(pa.array(["noon", None, "inf", "nan", "2024-13-01", "1e9", " 5 "]))
    assert np.isnan(seconds).tolist() == [True, True, True, True, True, False, False]
    assert dated.tolist() == [True, False, True, True, True, False, False]
