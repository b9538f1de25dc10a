"""The value of the rest of a round for searches of one kind, level by level, from a given state of the round.

Invariant: every price and gain is one request's own, its part of what requests share; so levels can be added up and plans compared.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]

# The certainties for which the draft's beam is valued beforehand; values between them are interpolated.
CERTAINTIES: DoubleArray = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class LevelValues:
    """The values of the levels below a state of a round.

    Attributes:
        savings: by depth, seconds saved when the level is accepted.
        beam: by (depth, levels before it in the round), seconds that the draft's beam is worth at each of `CERTAINTIES`; absent without a
            draft.
        fan_out: by depth of the parents, children per prefix.
        children_cost: seconds to draft the children of a level.
        token: seconds of one token of the target, beyond the free ones.
        room: nodes of each level that are free.
        draft_token: seconds of one token of the draft, beyond the free ones.
        draft_room: tokens that are free in a forward of the draft.
        last_depth: the deepest level that is drafted.
        weighed: by depth and nodes, what `weigh` has answered at the beginning of rounds.
    """

    savings: dict[int, float]
    beam: dict[tuple[int, int], DoubleArray]
    fan_out: tuple[float, ...]
    children_cost: float
    token: float
    room: float
    draft_token: float
    draft_room: float
    last_depth: int
    weighed: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def price(self, nodes: DoubleArray) -> DoubleArray:
        """Seconds of the target for so many nodes of a level."""
        return self.token * np.maximum(nodes - self.room, 0)

    def draft_price(self, tokens: DoubleArray | float) -> DoubleArray:
        """Seconds that so many tokens add to a forward of the draft."""
        return self.draft_token * np.maximum(tokens - self.draft_room, 0)

    def weigh(self, depth: int, levels: int, certainty: float, nodes: int) -> tuple[float, float]:
        """Seconds won by drafting the level `depth` by children, and by the draft's beam; cached at the start of rounds."""
        if levels == 0 and (depth, nodes) in self.weighed:
            return self.weighed[depth, nodes]
        certain, many = np.array([certainty]), np.array([float(nodes)])
        weight = float(self.children(depth, certain, many)[0]), float(self.by_beam(depth, levels, certain, many)[0])
        if levels == 0:
            self.weighed[depth, nodes] = weight
        return weight

    def children(self, depth: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by drafting all children of `nodes` prefixes as the level `depth`, and further levels where that pays too."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        grown = nodes * self.fan_out[depth - 1]
        won: DoubleArray = certainty * self.savings[depth] - self.price(grown) - self.children_cost
        won += np.maximum(0, self.children(depth + 1, certainty, grown))
        return won

    def best(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by the best way to go on below a level; 0 for stopping."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        won: DoubleArray = np.maximum(self.children(depth, certainty, nodes), self.by_beam(depth, levels, certainty, nodes))
        return won.clip(min=0)

    def by_beam(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by asking the draft for the level `depth`."""
        if (depth, levels) not in self.beam:
            return np.full_like(nodes, -np.inf)
        won: DoubleArray = np.interp(certainty, CERTAINTIES, self.beam[depth, levels]) - self.draft_price(nodes)
        return won
