"""How a list is found, as one request chose it.

Invariant: a strict list takes neither seed nor temperature, so nobody believes to have sampled who has not; and a sampled list always has a
seed that can be written in JSON and asked for again.
"""

import secrets
from typing import Any

from drafting.beam.rule import STRICT, SearchRule, Verification
from server.schemas.recommendations import LARGEST_JSON_INTEGER

RELAXED_NOTE = "Relaxed verification is not distribution-preserving: which items are sampled also depends on the draft."


def choose_rule(verification: Verification, seed: int | None, temperature: float | None) -> SearchRule:
    """The rule of one request; a random seed where none is given.

    Raises:
        ValueError: the list is strict, yet there is a seed or a temperature, or one of them is out of range; the message is a sentence.
    """
    if verification is not Verification.STRICT:
        drawn = secrets.randbelow(LARGEST_JSON_INTEGER + 1) if seed is None else seed
        return SearchRule(verification, drawn, 1.0 if temperature is None else temperature)
    for name, value in (("seed", seed), ("temperature", temperature)):
        if value is not None:
            raise ValueError(f"A {name} is for lists that are sampled: leave it out, or choose gumbel or relaxed verification.")
    return STRICT


def rule_lines(rule: SearchRule) -> dict[str, Any]:
    """What an answer says of its rule, as `schemas.RecommendationAnswer` describes it."""
    lines: dict[str, Any] = {"verification": rule.verification.value}
    return lines if rule.verification is Verification.STRICT else lines | {"seed": rule.seed}
