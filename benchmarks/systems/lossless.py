"""Every test user of a data set, under every plan, against plain beam search: the lists that differ are counted.

Invariant: lists are compared item by item; only items with equal scores may change places.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from benchmarks.modelled_costs import modelled_costs
from benchmarks.systems.comparison import TIE, compare
from benchmarks.systems.histories import held_out_histories
from benchmarks.systems.trace import balance_of
from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.catalog.loading import load_catalog
from drafting.plans.costs import ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.plans.planner import AUTO, Planner
from verification.engine.calibration import measure_costs
from verification.recommender import Recommender

PLANS = ("trie", "beam:20", "beam:40", "beam:60", "beam:40x2", "beam:40+children", "beam:20x1+children", "auto", "auto@100000")
RULES = {"strict": STRICT, "gumbel": SearchRule(Verification.GUMBEL, seed=1)}


def run(
    target: Path, draft: Path, catalog_file: Path, data: Path, ks: Sequence[int], plans: Sequence[str], rules: Sequence[str], engine: str
) -> int:
    """Print one line per rule, k and plan; return how many lists differ.

    Raises:
        BenchmarkError, SetupError: there is no such rule or plan, or models, catalog and data can't be used together.
    """
    _check(rules, plans)
    catalog = load_catalog(catalog_file)
    histories = held_out_histories(data, catalog, target, None)
    recommender = Recommender.load(target, catalog, draft=draft, host=engine, dtype="float32")
    decoder, different = recommender.engine, 0
    costs = measure_costs(decoder, recommender.prompts.max_tokens)
    bar = tqdm(total=len(rules) * len(ks) * (1 + len(plans)), desc="Searching", unit="plan", leave=False, disable=None)
    for rule, k in itertools.product(rules, ks):
        decoder.use_plan(FixedPlan.parse("none"))
        plain = list(recommender.recommend(histories, k, k, rule=RULES[rule]))
        bar.update()
        for name in plans:
            decoder.use_plan(_plan(name, costs, decoder.trie.mean_fan_out))
            found = compare(plain, recommender.recommend(histories, k, k, rule=RULES[rule]))
            different += found.different
            bar.update()
            print(
                f"{rule} k={k} {name}: {found.equal} of {len(plain)} lists equal, {found.ties} differ in ties (< {TIE:g}), "
                f"{found.different} differ; {found.target_forwards:.2f} target forwards",
                flush=True,
            )
    bar.close()
    recommender.close()
    return different


def _check(rules: Sequence[str], plans: Sequence[str]) -> None:
    """Refuse what can't be searched by, before anything is searched."""
    if unknown := [rule for rule in rules if rule not in RULES]:
        raise BenchmarkError(f"There is no rule {unknown[0]!r} by which no list may differ: choose {' or '.join(RULES)}.")
    for name in plans:
        if name != AUTO and balance_of(name) is None:
            FixedPlan.parse(name)


def _plan(name: str, costs: ForwardCosts, fan_out: Sequence[float]) -> Plan:
    """A plan; `auto@B` is the planner of a machine whose forwards cost as much as B tokens, so that it drafts in full batches too."""
    if name == AUTO:
        return Planner(costs, fan_out, follows_clock=True)
    if balance := balance_of(name):
        return Planner(modelled_costs(balance), fan_out)
    return FixedPlan.parse(name)
