"""The values of items that caps count."""

import numpy as np
import pytest

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.item_values import ItemValues
from drafting.catalog.text_column import TextColumn
from tests.capping import BRANDS, random_values


@pytest.mark.parametrize("seed", range(3))
def test_items_of_a_value_are_those_that_have_it(seed: int) -> None:
    """As many values as the column's items have, each of the items of one of them."""
    values = random_values(60, np.random.default_rng(seed))
    found, items = AttributeColumn.of_values(values).item_values, np.arange(60)
    expected: dict[object, list[int]] = {}
    for item, value in enumerate(values):
        for each in set() if value is None else set(value) if isinstance(value, list) else {value}:
            expected.setdefault(each, []).append(item)
    numbers = sorted({number for those in found.of_items(items) for number in those})
    assert sorted(sorted(found.items_with(number).tolist()) for number in numbers) == sorted(expected.values())
    for number in numbers:
        having = [item for item, those in enumerate(found.of_items(items)) if number in those]
        assert sorted(found.items_with(number).tolist()) == np.flatnonzero(np.isin(found.codes, found.rows_of(number))).tolist() == having
        assert found.count(number) == len(having)


def test_nothing_is_left_to_work_out_when_it_is_first_asked() -> None:
    """It is made in a thread of its own, and asked between steps that others wait for."""
    values = AttributeColumn.of_values(["red", None, ["red", "blue"]]).item_values
    made = set(vars(values))
    assert (values.count(0), len(values.items_with(0))) == (2, 2)
    assert set(vars(values)) == made


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_value_that_no_item_has(row: int) -> None:
    """A file that another tool made may have one, in any place."""
    texts = [f'"{brand}"' for brand in BRANDS[:3]]
    used = [other for other in range(3) if other != row]
    values: ItemValues = AttributeColumn(np.array([*used, -1], np.int32), TextColumn.of(texts)).item_values
    assert values.of_items(np.arange(3)) == [values.of_items(np.array([0]))[0], values.of_items(np.array([1]))[0], []]
    for item in (0, 1):
        ((number,),) = values.of_items(np.array([item]))
        assert (values.count(number), values.items_with(number).tolist()) == (1, [item])
