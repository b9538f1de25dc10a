"""Every test user of a data set, under every plan, against plain beam search: the lists that differ are counted.

Run by `make lossless`: `python -m benchmarks.systems.lossless --target DIR --draft DIR --catalog FILE --data DIR`.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.systems.histories import held_out_histories
from drafting.alignment.data.interactions import InteractionError
from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.plan import FixedPlan, Plan
from drafting.plans.planner import Planner
from verification.engine.calibration import measure_costs
from verification.recommender import Recommender
from verification.result import BeamResult

PLANS = ("trie", "beam:20", "beam:40", "beam:60", "beam:40x2", "beam:40+children", "beam:20x1+children", "auto", "auto@100000")
# Items whose scores are closer may change places: the same sums in another order differ by as much in float32.
TIE = 1e-5
RULES = {"strict": STRICT, "gumbel": SearchRule(Verification.GUMBEL, seed=1)}


@dataclass(frozen=True)
class Comparison:
    """How many lists equal the plain ones, differ in the order of items with equal scores only, or differ otherwise."""

    equal: int
    ties: int
    different: int
    target_forwards: float


def compare(plain: Sequence[BeamResult], results: Iterable[BeamResult]) -> Comparison:
    """Holds lists against those of plain beam search."""
    equal = ties = different = forwards = 0
    for expected, result in zip(plain, results, strict=True):
        forwards += result.usage.target_forwards
        if [item.item for item in result.items] == [item.item for item in expected.items]:
            equal += 1
        elif _differ_in_ties_only(expected, result):
            ties += 1
        else:
            different += 1
    return Comparison(equal, ties, different, forwards / len(plain))


def _differ_in_ties_only(expected: BeamResult, result: BeamResult) -> bool:
    return len(expected.items) == len(result.items) and all(
        ours.item == theirs.item or abs(ours.score - theirs.score) < TIE for ours, theirs in zip(result.items, expected.items, strict=True)
    )


def main(arguments: Sequence[str]) -> int:
    """Prints one line per rule, k and plan; the status is 1 if a list differs."""
    parser = argparse.ArgumentParser(prog="make lossless", description="Count the lists that drafting changes (there must be none).")
    for name in ("target", "draft", "catalog", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--k", default="10,20", help="list lengths, separated by commas")
    parser.add_argument("--plans", default=",".join(PLANS), help="plans, separated by commas")
    parser.add_argument("--rules", default="strict", help="strict, gumbel or both, separated by a comma")
    parser.add_argument("--host", default="transformers", help="transformers or vllm")
    options = parser.parse_args(arguments)
    try:
        catalog = load_catalog(options.catalog)
        histories = held_out_histories(options.data, catalog, None)
        recommender = Recommender.load(options.target, catalog, draft=options.draft, host=options.host, dtype="float32")
    except (InteractionError, SetupError) as error:
        print(error, file=sys.stderr)
        return 1
    engine, different = recommender.engine, 0
    costs = measure_costs(engine, recommender.prompts.max_tokens)
    for rule, k in itertools.product(options.rules.split(","), map(int, options.k.split(","))):
        engine.use_plan(FixedPlan.parse("none"))
        plain = list(recommender.recommend(histories, k, rule=RULES[rule]))
        for name in options.plans.split(","):
            engine.use_plan(_plan(name, costs, engine.trie.mean_fan_out))
            found = compare(plain, recommender.recommend(histories, k, rule=RULES[rule]))
            different += found.different
            print(
                f"{rule} k={k} {name}: {found.equal} of {len(plain)} lists equal, {found.ties} differ in ties (< {TIE:g}), "
                f"{found.different} differ; {found.target_forwards:.2f} target forwards",
                flush=True,
            )
    recommender.close()
    return int(different > 0)


def _plan(name: str, costs: ForwardCosts, fan_out: Sequence[float]) -> Plan:
    """A plan; `auto@B` is the planner of a machine whose forwards cost as much as B tokens, so that it drafts in full batches too."""
    if name == "auto":
        return Planner(costs, fan_out, follows_clock=True)
    if name.startswith("auto@"):
        balance = float(name.removeprefix("auto@"))
        return Planner(ForwardCosts(CostCurve(balance, 1.0), CostCurve(balance / 100, 0.01)), fan_out)
    return FixedPlan.parse(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
