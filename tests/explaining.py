"""Explanations by oracles: what must hold of every one, and one that tells all against brute force."""

from collections.abc import Callable, Sequence

import numpy as np

from tests.oracles import brute_force_beam
from verification.explanation import ExplainedLevel
from verification.request import BeamRequest
from verification.result import BeamResult

Prefix = tuple[int, ...]
# More prefixes than any level of a test has.
ALL = 10_000


def prefixes(level: ExplainedLevel, depth: int, identifiers: np.ndarray) -> list[Prefix]:
    """The prefixes that a level tells, as tokens."""
    return [tuple(map(int, identifiers[item][:depth])) for item in level.items]


def listed(result: BeamResult, identifiers: np.ndarray) -> list[tuple[Prefix, float]]:
    """The identifiers of a list with their scores, best first."""
    return [(tuple(map(int, identifiers[item.item])), item.score) for item in result.firsts]


def check_explained(result: BeamResult, request: BeamRequest, identifiers: np.ndarray, is_read: bool = True) -> None:
    """Hold an explanation against its list, the engine's own counters, and its bound; every prefix must have its parent above it.

    Args:
        identifiers: `[items, depth]` tokens.
        is_read: False where drafts are not read, so that some nodes stand for no prefix, or for the same one.
    """
    assert result.explanation is not None
    usage, searches = result.usage, result.explanation.searches
    assert len(searches) == (1 if request.reserved is None else 2)
    levels = [level for search in searches for level in search]
    # A search without anything eligible ends before the depths for which nodes were given, or drafted unread.
    ended_early = not result.items and (request.retrieved is not None or not is_read)
    assert ended_early or sum(level.drafted for level in levels) == usage.drafted_nodes
    assert sum(level.used for level in levels) == usage.used_nodes
    assert max(level.forward for level in levels) + usage.thought_tokens == usage.target_forwards
    if request.reserved is None:
        assert tuple(depth for depth, level in enumerate(searches[0], 1) if level.accepted) == usage.accepted_depths
    # Of an item that both searches find, the list has the score of either: not every CPU gives them the last bit alike.
    leaves = [check_search(search, request, identifiers, is_read) for search in searches]
    assert all(score in [found.get(name) for found in leaves] for name, score in listed(result, identifiers))
    if request.reserved is None and request.blend is None:
        last = searches[0][-1]
        found = list(zip(prefixes(last, len(searches[0]), identifiers), last.log_probs, strict=True))
        assert found[: last.beam] == listed(result, identifiers)


def check_search(search: Sequence[ExplainedLevel], request: BeamRequest, identifiers: np.ndarray, is_read: bool) -> dict[Prefix, float]:
    """Check the levels of one search; return the prefixes of the last one with their log-probabilities."""
    assert request.explain is not None
    above: dict[Prefix, float] = {(): 0.0}
    for depth, level in enumerate(search, start=1):
        names = prefixes(level, depth, identifiers)
        told = dict(zip(names, level.log_probs, strict=True))
        assert len(told) == len(names) == len(level.is_drafted) == len(level.is_candidate)
        assert level.beam <= len(names) <= level.beam + request.explain + sum(level.is_candidate)
        assert all(told[name] <= above[name[:-1]] + 1e-4 for name in names)
        assert level.log_probs[level.beam :] == tuple(sorted(level.log_probs[level.beam :], reverse=True))
        in_tree = [drafted or candidate for drafted, candidate in zip(level.is_drafted, level.is_candidate, strict=True)]
        assert level.accepted == (level.beam > 0 and depth < identifiers.shape[1] and all(in_tree[: level.beam]))
        assert level.used == sum(level.is_drafted[: level.beam])
        assert level.truncated or not is_read or level.drafted == sum(level.is_drafted)
        assert sum(level.is_drafted) <= level.drafted
        assert level.forward == (1 if depth == 1 else search[depth - 2].forward + (not search[depth - 2].accepted))
        above = told
    return above


def check_by_brute_force(
    levels: Sequence[ExplainedLevel],
    request: BeamRequest,
    score: Callable[[list[Prefix]], np.ndarray],
    identifiers: np.ndarray,
    allowed: np.ndarray,
) -> None:
    """Every beam, every number and every eligible continuation of every beam, of an explanation that tells all.

    Args:
        score: as in `brute_force_beam`.
        allowed: `[items]` bool.
    """
    names, beam = identifiers[allowed].tolist(), {()}
    for depth, level in enumerate(levels, start=1):
        continued = {tuple(name[:depth]) for name in names if tuple(name[: depth - 1]) in beam}
        found = dict(zip(prefixes(level, depth, identifiers), level.log_probs, strict=True))
        assert not level.truncated
        assert level.considered == len(continued)
        assert found.keys() >= continued
        told = list(found)
        steps = [score([name[:place] for name in told])[np.arange(len(told)), [name[place] for name in told]] for place in range(depth)]
        np.testing.assert_allclose([found[name] for name in told], np.sum(steps, axis=0), atol=1e-4, rtol=0)
        width = request.k if depth == identifiers.shape[1] else request.beam_width
        expected = brute_force_beam(score, identifiers[:, :depth], allowed, width, request.beam_width)
        assert told[: level.beam] == [name for name, _ in expected]
        beam = set(told[: level.beam])
