"""This project's engine, asked like its rivals: a prompt in tokens, a list of identifiers in tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from drafting.catalog.loading import load_catalog
from drafting.plans.fixed_plan import FixedPlan
from verification.hosts.checkpoint import load_tokenizer
from verification.recommender import Recommender
from verification.request import PromptTokens

AUTO = "auto"


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Load target, draft and catalog; every plan runs on them."""
    target, catalog = Path(spec["target"]), load_catalog(Path(spec["catalog"]))
    recommender = Recommender.load(
        target,
        catalog,
        draft=Path(spec["draft"]),
        plan=AUTO,
        host=spec["host"],
        dtype=spec["dtype"],
        normalise=spec["normalise"],
        threads=spec["threads"],
        kv_memory_gib=0.5,
    )
    engine = recommender.engine
    planner = engine.plan
    identifiers = catalog.token_ids(load_tokenizer(target).get_vocab())

    def search(prompt: list[int], k: int, plan: str) -> list[list[int]]:
        engine.use_plan(planner if plan == AUTO else FixedPlan.parse(plan))
        engine.add(recommender.request("", PromptTokens(np.array(prompt)), k, k))
        while not (finished := engine.step().finished):
            pass
        engine.forget_histories()
        return [identifiers[item.item].tolist() for item in finished[0].firsts]

    return search
