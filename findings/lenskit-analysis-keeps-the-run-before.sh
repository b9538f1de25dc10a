#!/usr/bin/env bash
# lenskit 2025.8.1: a RunAnalysis that measures a second run gives the mean over both runs, without a word.
#
# Guess: `RunAnalysis(...).measure(lists, test)` measures the lists that it is given, so one object, set up once with its metrics, serves
#   for every recommender of a table.
# Seen: it keeps the lists of before. A run that finds every item in first place has a reciprocal rank of 1.0; the second run, which finds
#   none, has 0.5 where a new object gives 0.0, and both runs stand in its result with the same users as index, twice. Nothing is raised
#   or warned of, and values between two right ones look right. Of three recommenders in a loop the last is the mean of all three: the
#   order in which a table is made decides who looks better.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lenskit==2025.8.1
OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import warnings

from lenskit.data import ItemList, ItemListCollection
from lenskit.metrics import Hit, RecipRank, RunAnalysis

warnings.simplefilter("error")
USERS = range(10)


def lists(items: dict[int, list[int]]) -> ItemListCollection:
    return ItemListCollection.from_dict({user: ItemList(row, ordered=True) for user, row in items.items()}, "user_id")


test = lists({user: [100 + user] for user in USERS})
good, poor = lists({user: [100 + user, 1, 2] for user in USERS}), lists({user: [1, 2, 3] for user in USERS})


def mean(analysis: RunAnalysis, run: ItemListCollection) -> tuple[float, int]:
    """Mean reciprocal rank of a run, and how many lists its result holds."""
    result = analysis.measure(run, test)
    return float(result.list_summary().loc["RecipRank@3", "mean"]), len(result.list_metrics())


kept = RunAnalysis(RecipRank(3), Hit(3))
seen = [mean(kept, run) for run in (good, poor, poor)]
fresh = mean(RunAnalysis(RecipRank(3), Hit(3)), poor)
print(f"mean reciprocal rank and lists measured, of a good run and twice a poor one by the same object: {seen}; the poor one by a new object: {fresh}")
assert fresh == (0.0, 10) and [count for _, count in seen] == [10, 20, 30]
assert [round(value, 3) for value, _ in seen] == [1.0, 0.5, 0.333]
PY
