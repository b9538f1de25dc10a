"""The order in which contenders are asked."""

from benchmarks.rotation import in_turn


def test_each_contender_is_first_once_in_as_many_turns_as_there_are() -> None:
    assert [in_turn("abc", turn) for turn in range(4)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    assert in_turn(range(2), 1) == [1, 0]
    assert in_turn([], 3) == []
