#!/usr/bin/env bash
# ranx 0.3.21: evaluate(make_comparable=True) takes the lists of all other users out of the run that it is given, and the next call counts
# them as misses.
#
# Guess: evaluating measures a run and leaves it as it is, so one run serves for all users and for groups of them (warm, cold, validation, test),
#   in any order. What makes run and truth comparable, which it asks for where their users differ, does so for this call.
# Seen: it deletes from the caller's object the users whom the truth at hand lacks, and gives those whom the run lacks an empty list. A
#   perfect run of 100 users has a recall and NDCG of 1.0 for all, then 1.0 for the 20 warm ones, and then 0.2 for all; the 80 cold ones have 0.0
#   where a new run gives 1.0. `compare` does so to every run of a table, and the file that `save` writes afterwards has 20 lists. Nothing is
#   said. A run that is measured by groups of users before it is measured as a whole gets figures that are too low.
# Fails if that changes. (Installs 700 MB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ranx==0.3.21 numpy==2.4.6 pandas==3.1.1 numba==0.68.1
NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - "$work/run.json" <<'PY'
import sys

from ranx import Qrels, Run, compare, evaluate

USERS = [f"user {number}" for number in range(100)]
WARM, COLD = USERS[:20], USERS[20:]
METRICS = ["recall@10", "ndcg@10"]


def truth(users: list[str]) -> Qrels:
    return Qrels({user: {f"item of {user}": 1} for user in users})


def perfect() -> Run:
    return Run({user: {f"item of {user}": 2.0, "another": 1.0} for user in USERS})


def measure(run: Run, users: list[str]) -> list[float]:
    return [round(float(value), 3) for value in evaluate(truth(users), run, METRICS, make_comparable=True).values()]


run = perfect()
before, warm, after, cold = measure(run, USERS), measure(run, WARM), measure(run, USERS), measure(run, COLD)
new = measure(perfect(), COLD)
print(f"recall and NDCG of all users {before}, the warm ones {warm}, all again {after}, the cold ones {cold}; by a new run {new}")
assert before == warm == [1.0, 1.0] and after == [0.2, 0.2] and cold == [0.0, 0.0] and new == [1.0, 1.0]

saved = perfect()
measure(saved, WARM)
saved.save(sys.argv[1])
runs = [perfect(), perfect()]
compare(truth(WARM), runs, METRICS, make_comparable=True)
compared = [measure(each, USERS) for each in runs]
print(f"lists in the file that is saved: {len(Run.from_file(sys.argv[1]).run)}; all users after a comparison of warm ones: {compared}")
assert len(Run.from_file(sys.argv[1]).run) == len(WARM) and compared == [[0.2, 0.2]] * 2
PY
