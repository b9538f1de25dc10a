"""The picture of an explained search: prefixes level by level, from the history to the items, drawn as a tree.

Invariant: it shows the numbers of the answer and no others, and texts of the answer are escaped where they come into it.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from markupsafe import Markup

from server.schemas.explanations import ExplainedLevelAnswer, ExplainedNode

ROOT = 0
ROW, COLUMN, GAP, TOP = 27, 176, 58, 8
LEAF_COLUMN = 330
_BOX = 21
# Of a monospaced token and of a title, where the box ends.
_TOKEN_CHARACTERS, _TITLE_CHARACTERS = 13, 30


class Shown(Enum):
    """Which prefixes a picture has."""

    PATHS = "Ways to the list"
    BEAM = "The beam"
    ALL = "And what was cut"


@dataclass(frozen=True)
class _Placed:
    """A prefix at its place."""

    node: ExplainedNode
    x: float
    y: float


def visible(levels: Sequence[ExplainedLevelAnswer], paths: Collection[Sequence[int]], shown: Shown) -> list[list[ExplainedNode]]:
    """The prefixes of each level that a picture has: those that are asked for, and the ways to them."""
    listed = [{path[depth] for path in paths} for depth in range(len(levels))]
    kept: list[list[ExplainedNode]] = []
    needed: set[int] = set()
    for level, on_path in zip(reversed(levels), reversed(listed), strict=True):
        chosen = [
            node
            for node in level.nodes
            if node.node in needed or node.node in on_path or (shown is Shown.BEAM and node.in_beam) or shown is Shown.ALL
        ]
        needed = {node.parent for node in chosen}
        kept.insert(0, chosen)
    return kept


def draw(levels: Sequence[ExplainedLevelAnswer], paths: Collection[Sequence[int]], shown: Shown, chosen: Sequence[int] = ()) -> str:
    """An SVG of the tree; `chosen` is a path to stress."""
    nodes = visible(levels, paths, shown)
    placed, rows = _place(nodes)
    height = TOP + ROW * rows + 4
    width = GAP + (COLUMN + GAP) * (len(levels) - 1) + LEAF_COLUMN
    by_node = [{each.node.node: each for each in column} for column in placed]
    root_y = _middle([each.y for each in placed[0]]) if placed and placed[0] else TOP
    parts = [Markup('<circle class="root" cx="10" cy="{:.1f}" r="6"/>').format(root_y)]
    for depth, column in enumerate(placed):
        is_last = depth == len(placed) - 1
        best = max((each.node.log_prob for each in column), default=0.0)
        for each in column:
            parent = (16.0, root_y) if depth == 0 else _end(by_node[depth - 1][each.node.parent])
            stressed = " chosen" if each.node.node in chosen else ""
            parts.append(_edge(parent, (each.x, each.y), each.node.in_beam, stressed))
            parts.append(_box(each, best, LEAF_COLUMN if is_last else COLUMN, stressed, is_last=is_last))
    label = f"Tree of {sum(map(len, nodes))} prefixes on {len(levels)} levels; the table below has the same in words."
    return str(
        Markup('<svg class="tree" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            width, height, width, height, label, Markup("").join(parts)
        )
    )


def _place(nodes: Sequence[Sequence[ExplainedNode]]) -> tuple[list[list[_Placed]], int]:
    """Places without crossing ways, and the number of rows: a prefix stands in the middle of those that go on from it."""
    children: list[dict[int, list[ExplainedNode]]] = []
    for column in nodes:
        of_parent: dict[int, list[ExplainedNode]] = {}
        for node in column:
            of_parent.setdefault(node.parent, []).append(node)
        children.append(of_parent)
    placed: list[list[_Placed]] = [[] for _ in nodes]
    rows = 0

    def put(node: ExplainedNode, depth: int) -> float:
        nonlocal rows
        below = children[depth + 1].get(node.node, []) if depth + 1 < len(nodes) else []
        if below:
            y = _middle([put(child, depth + 1) for child in below])
        else:
            y = TOP + ROW * (rows + 0.5)
            rows += 1
        placed[depth].append(_Placed(node, GAP + depth * (COLUMN + GAP), y))
        return y

    for node in children[0].get(ROOT, []) if children else []:
        put(node, 0)
    return placed, rows


def _middle(heights: Sequence[float]) -> float:
    return (min(heights) + max(heights)) / 2


def _end(placed: _Placed) -> tuple[float, float]:
    return placed.x + COLUMN, placed.y


def _edge(start: tuple[float, float], end: tuple[float, float], in_beam: bool, stressed: str) -> Markup:
    middle = (start[0] + end[0]) / 2
    path = f"M{start[0]:.1f},{start[1]:.1f} C{middle:.1f},{start[1]:.1f} {middle:.1f},{end[1]:.1f} {end[0]:.1f},{end[1]:.1f}"
    return Markup('<path class="{}{}" d="{}"/>').format("way" if in_beam else "way cut", stressed, path)


def _box(placed: _Placed, best: float, width: float, stressed: str, *, is_last: bool) -> Markup:
    node, x, y = placed.node, placed.x, placed.y
    top = y - _BOX / 2
    title = node.items[0].title or node.items[0].item_id if is_last and node.items else ""
    text = Markup('<tspan class="token">{}</tspan>').format(_cut(node.token, _TOKEN_CHARACTERS))
    if title:
        text += Markup('<tspan class="what" dx="6">{}</tspan>').format(_cut(title, _TITLE_CHARACTERS))
    return Markup(
        '<g class="node{}{}"><title>{}</title>'
        '<rect class="box" x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="5"/>'
        '<rect class="fill" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="3" rx="1.5"/>'
        "{}"
        '<text x="{:.1f}" y="{:.1f}">{}</text><text class="score" x="{:.1f}" y="{:.1f}">{:.2f}</text></g>'
    ).format(
        "" if node.in_beam else " cut",
        stressed,
        say(node),
        *(x, top, width, _BOX),
        *(x + 1, top + _BOX - 3.5, (width - 2) * math.exp(min(node.log_prob - best, 0.0))),
        _mark(node, x + 9, y),
        *(x + 18, y + 4, text),
        *(x + width - 7, y + 4, node.log_prob),
    )


def _mark(node: ExplainedNode, x: float, y: float) -> Markup:
    """A full dot where a draft was accepted, a ring where it was not."""
    if not node.drafted:
        return Markup("")
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format("accepted" if node.accepted else "drafted", x, y)


def say(node: ExplainedNode) -> str:
    """All of a prefix in words."""
    place = f"rank {node.rank} in the beam" if node.in_beam else "cut"
    draft = ", drafted and accepted" if node.accepted else ", drafted" if node.drafted else ""
    items = f"{node.items_below:,} item{'s' if node.items_below != 1 else ''}"
    names = f": {', '.join(item.title or item.item_id for item in node.items)}" if node.items else ""
    return f"{node.token}, log-probability {node.log_prob:.3f}, {place}{draft}, {items}{names}"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
