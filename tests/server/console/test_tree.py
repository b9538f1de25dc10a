"""The picture of a tree: what it has, and that texts of a catalog stay texts."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from server.console.lists.tree import Shown, draw, visible
from server.schemas.comparisons import ItemName
from server.schemas.explanations import ExplainedLevelAnswer, ExplainedNode

WIDTHS = (4, 6, 9)
HOSTILE = "<script>alert(1)</script>"


def random_levels(seed: int) -> list[ExplainedLevelAnswer]:
    """Levels of a search, whose beam is the first half of each, with parents above."""
    rng = np.random.default_rng(seed)
    levels: list[ExplainedLevelAnswer] = []
    parents = [0]
    for depth, width in enumerate(WIDTHS, start=1):
        nodes = [
            ExplainedNode(
                node=100 * depth + place,
                parent=int(rng.choice(parents)),
                token=f"<{depth}_{place}>",
                log_prob=-float(place),
                in_beam=place < width // 2,
                rank=place + 1 if place < width // 2 else None,
                drafted=bool(rng.integers(2)),
                accepted=False,
                items_below=1,
                items=[ItemName(item_id=str(place), title=HOSTILE)] if depth == len(WIDTHS) else None,
            )
            for place in range(width)
        ]
        parents = [node.node for node in nodes]
        level = ExplainedLevelAnswer(
            depth=depth, forward=1, accepted=False, considered=width, drafted=0, used=0, truncated=False, nodes=nodes
        )
        levels.append(level)
    return levels


def paths(levels: Sequence[ExplainedLevelAnswer]) -> list[list[int]]:
    """The ways to the beam of the last level."""
    above = {node.node: node.parent for level in levels for node in level.nodes}
    found = [[node.node] for node in levels[-1].nodes if node.in_beam]
    for path in found:
        while above[path[0]]:
            path.insert(0, above[path[0]])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_shown_hangs_together_and_is_what_was_asked_for(seed: int):
    levels = random_levels(seed)
    ways = {node for path in paths(levels) for node in path}
    beam = {node.node for level in levels for node in level.nodes if node.in_beam}
    everything = {node.node for level in levels for node in level.nodes}
    for shown, least in ((Shown.PATHS, ways), (Shown.BEAM, ways | beam), (Shown.ALL, everything)):
        nodes = [node for level in visible(levels, paths(levels), shown) for node in level]
        numbers = {node.node for node in nodes}
        assert least <= numbers
        assert {node.parent for node in nodes} <= numbers | {0}
        # Beyond what was asked for, only ways to it.
        assert numbers - least <= {node.parent for node in nodes}


@pytest.mark.parametrize("seed", range(5))
def test_ways_do_not_cross_and_prefixes_do_not_overlap(seed: int):
    drawn = draw(random_levels(seed), paths(random_levels(seed)), Shown.ALL)
    boxes = [(float(x), float(y)) for x, y in re.findall(r'class="box" x="([\d.]+)" y="([\d.]+)"', drawn)]
    ends = re.findall(r'd="M[\d.]+,([\d.]+) C.*? ([\d.]+),([\d.]+)"', drawn)
    assert len(boxes) == len(ends) == sum(WIDTHS)
    for column in {x for x, _ in boxes}:
        heights = sorted(y for x, y in boxes if x == column)
        assert min(np.diff(heights)) >= 27 - 0.1
        ways = sorted((float(end), float(start)) for start, x, end in ends if float(x) == column)
        assert [start for _, start in ways] == sorted(start for _, start in ways)


def test_titles_stay_texts():
    drawn = draw(random_levels(0), paths(random_levels(0)), Shown.ALL)
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn
