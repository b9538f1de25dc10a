"""The picture of a replay shows every plan."""

from pathlib import Path

import pytest

from benchmarks.replay.plot import plot_speedups
from benchmarks.replay.report import ReplayRow


def test_no_plan_is_hidden_and_list_lengths_are_those_that_were_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The legend lay over the slower plans of the last machine, and the axis told of lists of 2.5."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.append(figure))
    rows = [
        ReplayRow(a, k, plan, 1.0, 1.0, 4.0, 100.0, 0.0, 0.0, 0.0) for a in (50.0, 300.0) for k in (1, 5, 20) for plan in ("none", "auto")
    ]
    plot_speedups(rows, tmp_path / "plot.png")
    (figure,) = drawn
    assert [axes.get_xticks().tolist() for axes in figure.axes] == [[1, 5, 20]] * 2
    assert [axes.get_legend() for axes in figure.axes] == [None] * 2
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["none", "auto"]
