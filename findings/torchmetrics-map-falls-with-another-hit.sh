#!/usr/bin/env bash
# torchmetrics 1.9.0: RetrievalMAP(top_k=10) falls when a list finds more relevant items: it divides by the hits among ten, not by the relevant.
#
# Guess: one more relevant item among the first ten raises AP@10 or leaves it, as in trec_eval's map_cut and ranx's map@10.
# Seen: a user with ten relevant items. A list with one of them, in first place, has AP@10 = 1.0, the greatest there is; with all the same
#   and one more hit in tenth place 0.6. trec_eval (pytrec_eval-terrier 0.5.11) and ranx 0.3.21 give 0.10 and 0.12. Of 200 random lists
#   in which a hit takes the place of a miss 31 get worse in torchmetrics, none in the others. So of two recommenders the one that finds
#   one item and then nothing can win, and checkpoints chosen by this metric are chosen against recall.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 ranx==0.3.21 \
  pytrec_eval-terrier==0.5.11
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import pytrec_eval
import torch
from ranx import Qrels, Run, evaluate
from torchmetrics.retrieval import RetrievalMAP

ITEMS, RELEVANT = 100, 10


def average_precision(ranks: list[int]) -> np.ndarray:
    """AP@10 by torchmetrics, trec_eval and ranx of a list of all items, of whose ten relevant ones these stand in the first ten."""
    relevant = {*ranks, *range(ITEMS - RELEVANT + 1 + len(ranks), ITEMS + 1)}
    scores = {str(rank): float(ITEMS - rank) for rank in range(1, ITEMS + 1)}
    metric = RetrievalMAP(top_k=10)
    metric.update(torch.tensor(list(scores.values())), torch.tensor([int(item) in relevant for item in scores]), torch.zeros(ITEMS).long())
    judged, run = {"user": {str(rank): 1 for rank in relevant}}, {"user": scores}
    trec = pytrec_eval.RelevanceEvaluator(judged, {"map_cut.10"}).evaluate(run)["user"]["map_cut_10"]
    return np.array([metric.compute().item(), trec, evaluate(Qrels(judged), Run(run), "map@10")])


one, two = average_precision([1]), average_precision([1, 10])
generator, worse = np.random.default_rng(0), np.zeros(3, int)
for _ in range(200):
    ranks = generator.permutation(np.arange(1, 11))[: generator.integers(2, 10)].tolist()
    worse += average_precision(ranks) < average_precision(ranks[:-1]) - 1e-6
print(f"torchmetrics, trec_eval, ranx: one hit, in first place: {one.round(3)}; one more in tenth place: {two.round(3)}")
print(f"of 200 lists that got one more hit, worse than before: {worse}")
assert abs(one[0] - 1) < 1e-6 and abs(two[0] - 0.6) < 1e-6 and np.allclose(one[1:], 0.1) and np.allclose(two[1:], 0.12)
assert worse[0] > 20 and not worse[1:].any()
PY
