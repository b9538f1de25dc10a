#!/usr/bin/env bash
# implicit 0.7.2: precision_at_k is no precision: ten items with the one that was held out among them have precision 1.0.
#
# Guess: `precision_at_k(..., K=10)` is the mean over users of hits / 10, so the best that leave-one-out can reach is 0.1, as in ranx and as
#   the documentation ("P@K") lets one expect.
# Seen: hits of all users together, divided by the sum of min(10, held-out items). With one item held out it is the hit rate: a perfect
#   recommender has 1.0 where ranx 0.3.21 says 0.1. And users are not weighed alike: of 100 users one, with a hundred items held out, is
#   served well, 99 with one item each are not; precision is 0.092, ranx gives 0.01. `ndcg` and `map` of the same call are means over
#   users (0.01 both), so two columns of one table are averaged in two ways. Baselines of this library are quoted beside others'.
# Fails if that changes. (With scipy from 1.14 on its evaluation does not run at all.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check implicit==0.7.2 scipy==1.13.1 numpy==1.26.4 ranx==0.3.21
OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import scipy.sparse as sp
from implicit.evaluation import ranking_metrics_at_k
from ranx import Qrels, Run, evaluate

USERS, ITEMS, K = 100, 500, 10


class Fixed:
    """A recommender whose lists are given."""

    def __init__(self, lists: np.ndarray) -> None:
        self.lists = lists

    def recommend(self, users: np.ndarray, *_: object, **__: object) -> tuple[np.ndarray, np.ndarray]:
        lists = self.lists[np.asarray(users)]
        return lists, np.broadcast_to(np.arange(K, 0, -1, dtype=np.float32), lists.shape)


def measure(held_out: list[list[int]], served: list[bool]) -> tuple[dict[str, float], float]:
    """Metrics of implicit, and precision by ranx, of lists that begin with what was held out for users who are served, and miss for others."""
    lists = np.empty((USERS, K), np.int32)
    for user, (items, good) in enumerate(zip(held_out, served)):
        others = [item for item in range(ITEMS) if item not in items]
        lists[user] = [*(items if good else []), *others][:K]
    rows = np.repeat(np.arange(USERS), [len(items) for items in held_out])
    test = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.concatenate(held_out))), shape=(USERS, ITEMS))
    found = ranking_metrics_at_k(Fixed(lists), sp.csr_matrix((USERS, ITEMS), dtype=np.float32), test, K=K, show_progress=False, num_threads=1)
    judged = Qrels({str(user): {str(item): 1 for item in items} for user, items in enumerate(held_out)})
    run = Run({str(user): {str(item): float(K - rank) for rank, item in enumerate(row)} for user, row in enumerate(lists)})
    return {name: float(value) for name, value in found.items()}, float(evaluate(judged, run, "precision@10"))


one_each = [[100 + user] for user in range(USERS)]
perfect = measure(one_each, [True] * USERS)
heavy = measure([list(range(100, 200)), *one_each[1:]], [True] + [False] * (USERS - 1))
for name, (found, ranx) in (("one item held out, listed first", perfect), ("one user of a hundred is served", heavy)):
    print(f"{name}: implicit {({key: round(value, 3) for key, value in found.items()})}, precision by ranx {ranx:.3f}")
assert abs(perfect[0]["precision"] - 1) < 1e-6 and abs(perfect[1] - 0.1) < 1e-6
assert abs(heavy[0]["precision"] - 10 / 109) < 1e-6 and abs(heavy[1] - 0.01) < 1e-6 and abs(heavy[0]["ndcg"] - 0.01) < 1e-6
PY
