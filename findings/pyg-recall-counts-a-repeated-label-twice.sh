#!/usr/bin/env bash
# PyTorch Geometric 2.8.1: LinkPredRecall, NDCG and MAP count a label once for each time that the user met the item, and a hit only once.
#
# Guess: labels are a set, as the list is: who bought one item twice, and is recommended it first, has Recall@10 and NDCG@10 of 1.0. Logs of
#   what people buy again or listen to hold such edges.
# Seen: the edges of a user are counted as they come, so that list has Recall 0.5, NDCG 0.61 and MAP 0.5, and with an item bought five times
#   Recall is 0.2: no list can be better. Precision, MRR and the hit ratio are as guessed. A model's figures fall with every repetition that the data keep, so
#   two papers that differ in whether they drop repeats do not compare. Nothing is said; labels must be made distinct before.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch_geometric==2.8.1 torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torch_geometric.metrics import LinkPredHitRatio, LinkPredMAP, LinkPredMRR, LinkPredNDCG, LinkPredPrecision, LinkPredRecall

METRICS = {"recall": LinkPredRecall, "ndcg": LinkPredNDCG, "map": LinkPredMAP, "mrr": LinkPredMRR, "hit": LinkPredHitRatio}
lists = torch.arange(10)[None]


def measured(*bought: int) -> dict[str, float]:
    """The figures of one user's list 0, 1, ..., 9."""
    labels = torch.stack([torch.zeros(len(bought), dtype=torch.long), torch.tensor(bought)])
    found = {}
    for name, metric in (METRICS | {"precision": LinkPredPrecision}).items():
        one = metric(k=10)
        one.update(lists, labels)
        found[name] = round(float(one.compute()), 3)
    return found


once, twice, often = measured(0), measured(0, 0), measured(0, 0, 0, 0, 0)
print("bought once:      ", once)
print("bought twice:     ", twice)
print("bought five times:", often)
assert once == {"recall": 1.0, "ndcg": 1.0, "map": 1.0, "mrr": 1.0, "hit": 1.0, "precision": 0.1}
assert twice == once | {"recall": 0.5, "ndcg": 0.613, "map": 0.5}
assert often["recall"] == 0.2
PY
