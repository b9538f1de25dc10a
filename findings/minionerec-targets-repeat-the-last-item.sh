#!/usr/bin/env bash
# MiniOneRec's published data (commit 81b4ba9): in one test case of twenty the target is in the history, mostly as its very last item.
#
# Guess: a review is written once a product, so fewer than 1% of the targets stand in the history, spread over it, and a list may leave
#   out what a user has had without a loss.
# Seen: Industrial: by identifier, as its `calc.py` counts hits, 4.7% of the 4,533 test targets are in the history, by item 2.8%, of which
#   95% are its last item. In the validation set 6.8% and 5.2% (87%), in Office_Products 3.2% and 2.4% (64%), validation 6.3% and 5.8%. So
#   whoever leaves out the history, as masked baselines do, gives up 4.7 points of the hit rate that a generator without a mask can reach
#   by saying the last item again, and the loss is greater where checkpoints are chosen than where they are tested.
# Fails if that changes. (MINIONEREC_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${MINIONEREC_SOURCE:-https://github.com/AkaliKong/MiniOneRec}" "$work/data"
git -C "$work/data" checkout --quiet 81b4ba9811cfb152cf161f1c486fe516510d081e -- \
  data/Amazon/{valid,test}/{Industrial_and_Scientific,Office_Products}_5_2016-10-2018-11.csv
cd "$work/data/data/Amazon"
python3 - <<'PY'
import ast
import csv

csv.field_size_limit(2**30)
seen = {}
for category in ("Industrial_and_Scientific", "Office_Products"):
    for part in ("valid", "test"):
        with open(f"{part}/{category}_5_2016-10-2018-11.csv", newline="") as lines:
            rows = list(csv.DictReader(lines))
        counts = [0, 0, 0]
        for row in rows:
            items, identifiers = (ast.literal_eval(row[f"history_item_{kind}"]) for kind in ("id", "sid"))
            target = int(row["item_id"])
            counts = [count + bool(hit) for count, hit in zip(counts, (target in items, target == items[-1], row["item_sid"] in identifiers))]
        within, last, identifier = seen[category, part] = [count / len(rows) for count in counts]
        print(f"{category} {part}, {len(rows)} rows: target in the history {within:.3f}, the last item {last:.3f}, by identifier {identifier:.3f}")
for (category, part), (within, last, identifier) in seen.items():
    assert within > 0.02 and identifier > within and last / within > 0.6, (category, part)
industrial = seen["Industrial_and_Scientific", "test"]
assert industrial[1] / industrial[0] > 0.9 and industrial[2] > 0.045
PY
