#!/usr/bin/env bash
# S-DPO's published LastFM data (commit 07befa4): the 19 wrong candidates and the place of the right one are drawn with the target as seed,
# so who has seen a target before knows it again by its list, without a history.
#
# Guess: the candidates of a row, a target and 19 others in random order, say no more of the target than how often each of the 20 is met.
# Seen: the target is the seed of both draws (`lastfm_data.py`). In all 5,664 pairs of a test row and a validation row of the same target it
#   stands at the same place, and 5.7 of its 19 companions are the same, where two draws from 4,606 artists share 0.08. Of the 1,582 test
#   rows whose target is one of the validation set, 1,560 are answered right by "the candidate that was the target at this place, in the
#   most similar list of the validation set": a hit rate at 1 of 0.63 over all 2,495 rows, histories unread; chance has 0.05. The script
#   that wrote the data draws training rows alike, so a model that is tuned on them can learn lists instead of tastes.
# Fails if that changes. (SDPO_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${SDPO_SOURCE:-https://github.com/chenyuxin1999/S-DPO}" "$work/data"
git -C "$work/data" checkout --quiet 07befa4141239c1ecd8d13b1136d226315d0227b -- sample_data/lastfm_data.py \
  sample_data/lastfm-sft-cans20/lastfm-{val,test}.json
cd "$work/data/sample_data"
test "$(grep --count 'random\.seed(next_item)' lastfm_data.py)" = 2
python3 - <<'PY'
import json
from collections import defaultdict


def read(part: str) -> list[tuple[list[str], int]]:
    """The candidates of each row and the place of the target among them."""
    with open(f"lastfm-sft-cans20/lastfm-{part}.json") as lines:
        return [(row["itemList"], row["itemList"].index(row["trueSelection"])) for row in json.load(lines)]


valid, test = read("val"), read("test")
known = defaultdict(list)
for candidates, place in valid:
    known[candidates[place]].append((set(candidates), place))

shared, same, right, seen = [], 0, 0, 0
for candidates, place in test:
    here, target = set(candidates), candidates[place]
    shared += [len(here & others) - 1 for others, _ in known[target]]
    same += sum(other == place for _, other in known[target])
    seen += bool(known[target])
    guesses = [(len(here & others), item) for number, item in enumerate(candidates) for others, other in known[item] if other == number]
    right += bool(guesses) and max(guesses)[1] == target
mean = sum(shared) / len(shared)
print(f"{len(shared)} pairs of rows with one target: at the same place in {same}, {mean:.2f} of 19 companions shared")
print(f"{right} of {len(test)} test rows answered by their lists alone ({right / len(test):.3f}); {seen} have a target of the validation set")
assert same == len(shared) == 5_664 and mean > 5 and seen == 1_582 and right == 1_560
PY
