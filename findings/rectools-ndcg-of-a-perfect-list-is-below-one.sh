#!/usr/bin/env bash
# rectools 0.19.0: NDCG divides by the gain of k relevant items even where a user has fewer, so leave-one-out tables made with it are not
# those of other libraries.
#
# Guess: a list that begins with all that a user was held out has NDCG 1, as in ranx, whatever k is.
# Seen: one held-out item per user, in first place: NDCG@10 is 0.2201 = 1 / sum of 1 / log2(i + 1) for i = 1..10, against 1.0 of ranx
#   0.3.21 on the same lists; the factor depends on k (0.469 for k = 3) and on how many items were held out, so tables with other k or other
#   splits can't be put right by one number. Recall, MAP and MRR of the same lists are 1. `NDCG(divide_by_achievable=True)` gives 1.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rectools==0.19.0 ranx==0.3.21
"$work/venv/bin/python" -W ignore - <<'PY'
import math

import pandas as pd
import ranx
from rectools import Columns
from rectools.metrics import MAP, MRR, NDCG, Recall, calc_metrics

held_out = {1: 10, 2: 20}
lists = {user: [item, item + 1, item + 2] for user, item in held_out.items()}
truth = pd.DataFrame({Columns.User: list(held_out), Columns.Item: list(held_out.values())})
given = pd.DataFrame(
    [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, 1)],
    columns=[Columns.User, Columns.Item, Columns.Rank],
)
metrics = {
    "NDCG@3": NDCG(k=3), "NDCG@10": NDCG(k=10), "achievable NDCG@10": NDCG(k=10, divide_by_achievable=True),
    "Recall@10": Recall(k=10), "MAP@10": MAP(k=10), "MRR@10": MRR(k=10),
}
found = calc_metrics(metrics, given, truth)
qrels = ranx.Qrels({str(user): {str(item): 1} for user, item in held_out.items()})
run = ranx.Run({str(user): {str(item): 1.0 / rank for rank, item in enumerate(items, 1)} for user, items in lists.items()})
other = float(ranx.evaluate(qrels, run, "ndcg@10"))
print({name: round(float(value), 4) for name, value in found.items()}, "ranx NDCG@10:", other)
expected = {k: 1 / sum(1 / math.log2(i + 1) for i in range(1, k + 1)) for k in (3, 10)}
assert abs(found["NDCG@3"] - expected[3]) < 1e-9 and abs(found["NDCG@10"] - expected[10]) < 1e-9 and found["NDCG@10"] < 0.23
assert other == found["achievable NDCG@10"] == found["Recall@10"] == found["MAP@10"] == found["MRR@10"] == 1
PY
