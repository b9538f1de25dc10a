"""What a list says of itself."""

from verification.result import BeamResult, RankedItem, Usage


def test_a_list_counts_its_identifiers_and_names_the_first_item_of_each():
    items = tuple(RankedItem(item, -float(rank), rank) for item, rank in ((7, 1), (3, 1), (9, 2), (1, 3), (2, 3)))
    found = BeamResult("a", items, Usage(1))
    assert found.identifiers == 3
    assert [item.item for item in found.firsts] == [7, 9, 1]
    assert BeamResult("b", (), Usage(1)).identifiers == 0
