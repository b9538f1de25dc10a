#!/usr/bin/env bash
# torcheval 0.0.7: hit_rate and reciprocal_rank put the target before all items of the same score, so a model that knows nothing is perfect.
#
# Guess: equal scores are ranked by position, or shared: a model that gives every item the same score hits about as often as chance, and
#   one whose scores are not numbers (NaN) misses or is refused.
# Seen: among 100 items, all with the score 0, the target is at rank 1 for every user: hit rate at 1 and reciprocal rank are 1.0. So they are
#   where all scores are NaN, since only greater scores count against the target: a training that has diverged has the best value that
#   there is, and early stopping keeps it. Honest scores are raised as well: random logits around 10 of 20,000 items, in bfloat16, where
#   many are equal, hit 3% of targets at 100 where chance, and the same logits in float32, is 0.5%.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torcheval==0.0.7 torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torcheval.metrics.functional import hit_rate, reciprocal_rank

torch.manual_seed(0)
targets = torch.randint(0, 100, (1_000,))
for name, value in (("equal", 0.0), ("NaN", float("nan"))):
    scores = torch.full((1_000, 100), value)
    seen = hit_rate(scores, targets, k=1).mean().item(), reciprocal_rank(scores, targets, k=10).mean().item()
    print(f"all scores {name}: hit rate at 1 {seen[0]}, reciprocal rank at 10 {seen[1]}")
    assert seen == (1.0, 1.0)
logits = 10 + 0.05 * torch.randn(2_000, 20_000)
targets = torch.randint(0, 20_000, (2_000,))
full, half = (hit_rate(scores, targets, k=100).mean().item() for scores in (logits, logits.bfloat16()))
print(f"random logits, hit rate at 100 of 20,000: float32 {full:.4f}, bfloat16 {half:.4f}")
assert full < 0.01 < 0.02 < half
PY
