#!/usr/bin/env bash
# recommenders 1.2.1: recall, precision and MAP leave out users for whom nothing was recommended, NDCG of the same lists counts them.
#
# Guess: a user without a list is a miss (0) in every metric, or left out of every one; and recall is at most 1, as its documentation says.
# Seen: ten users with one held-out item each, and a list for one of them, with the item in first place. recall_at_k and map_at_k are 1.0
#   and precision_at_k is 0.1, the most that there is, as if all had been served; ndcg_at_k is 0.1. So a recommender that stays silent where
#   it is unsure wins three columns of a table and loses the fourth. ranx 0.3.21 raises unless told to make run and truth comparable, and
#   then gives 0.1 for recall. And lists that name the held-out item in three places, as beams with two identifiers of one item can, have
#   recall 3.0, MAP 3.0 and NDCG 1.5.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check recommenders==1.2.1 ranx==0.3.21
OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import pandas as pd
from ranx import Qrels, Run, evaluate
from recommenders.evaluation.python_evaluation import map_at_k, ndcg_at_k, precision_at_k, recall_at_k

USERS = range(1, 11)
truth = pd.DataFrame([(user, 100 + user, 1.0) for user in USERS], columns=["userID", "itemID", "rating"])


def measure(lists: dict[int, list[int]]) -> dict[str, float]:
    rows = [(user, item, float(-rank)) for user, items in lists.items() for rank, item in enumerate(items)]
    predicted = pd.DataFrame(rows, columns=["userID", "itemID", "prediction"])
    return {metric.__name__: round(float(metric(truth, predicted, k=10)), 3) for metric in (recall_at_k, precision_at_k, map_at_k, ndcg_at_k)}


one = measure({1: [101, *range(9)]})
repeated = measure({user: [100 + user] * 3 for user in USERS})
judged = Qrels({str(user): {str(100 + user): 1} for user in USERS})
silent = Run({"1": {str(item): float(-rank) for rank, item in enumerate([101, *range(9)])}})
ranx = evaluate(judged, silent, "recall@10", make_comparable=True)
print(f"a list for one of ten users: {one}, recall by ranx {ranx}")
print(f"lists with the item three times: {repeated}")
assert one == {"recall_at_k": 1.0, "precision_at_k": 0.1, "map_at_k": 1.0, "ndcg_at_k": 0.1} and abs(ranx - 0.1) < 1e-9
assert repeated["recall_at_k"] == repeated["map_at_k"] == 3.0 and repeated["ndcg_at_k"] > 1.4
PY
