#!/usr/bin/env bash
# S-DPO's published LastFM data (commit 07befa4) have no order of time: all histories follow one order of the artists, and who knows it hits
# 82% of the targets without a model of taste.
#
# Guess: `historyList` is in the order in which a user listened, as in other sequential data, and `trueSelection` is what came next; of 20
#   candidates, 19 of them drawn evenly, the one met most often elsewhere is the target of a quarter of the rows.
# Seen: histories and targets of the 5,262 rows, validation and test, hold 40,752 pairs "this artist before that one", 4,210 of them of
#   several users, and no two contradict each other: all rows are sorted by one number. (It is that of HetRec's list of artists: all 1,020
#   rows whose artists stand in a public copy of a part of that list ascend by it.) The target is the user's next artist by number. Whoever
#   puts the order together, from the validation rows and the histories of the test rows, and says the candidate that follows the last
#   item most closely has a hit rate at 1 of 0.82 on the test set; the most frequent candidate has 0.26, chance 0.05. A model that is
#   trained on such rows can learn the list of artists, and a better figure then says nothing of what comes next for a user.
# Fails if that changes. (SDPO_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${SDPO_SOURCE:-https://github.com/chenyuxin1999/S-DPO}" "$work/data"
git -C "$work/data" checkout --quiet 07befa4141239c1ecd8d13b1136d226315d0227b -- sample_data/lastfm-sft-cans20/lastfm-{val,test}.json
cd "$work/data/sample_data/lastfm-sft-cans20"
python3 - <<'PY'
import json
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from itertools import combinations, pairwise


def read(part: str) -> list[tuple[list[str], list[str], str]]:
    """History, candidates and target of each row."""
    with open(f"lastfm-{part}.json") as lines:
        return [(row["historyList"].split("::"), row["itemList"], row["trueSelection"]) for row in json.load(lines)]


def places(sequences: list[list[str]]) -> dict[str, float]:
    """Where an item stands between 0 and 1, by the longest chains of items before and after it; raises if the sequences contradict each other."""
    before, after = defaultdict(set), defaultdict(set)
    for sequence in sequences:
        for one, other in pairwise(sequence):
            before[other].add(one)
            after[one].add(other)
    order = list(TopologicalSorter(before).static_order())
    behind, ahead = {}, {}
    for item in order:
        behind[item] = max((behind[one] + 1 for one in before[item]), default=0)
    for item in reversed(order):
        ahead[item] = max((ahead[other] + 1 for other in after[item]), default=0)
    return {item: behind[item] / (behind[item] + ahead[item]) for item in order}


valid, test = read("val"), read("test")
users: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
user = 0
rows = []
for history, _, target in valid + test:
    # A row goes on with the one before where that one's target has been added to the same history.
    user += not (rows and history == rows[-1][-len(history):])
    rows.append([*history, target])
    for pair in combinations(rows[-1], 2):
        users[pair].add(user)
several = sum(len(seen) > 1 for seen in users.values())
against = sum((other, one) in users for one, other in users)

place = places([[*history, target] for history, _, target in valid] + [history for history, _, _ in test])
often = Counter(target for _, _, target in valid)
order = popular = 0
for history, candidates, target in test:
    later = [(place[item], item) for item in candidates if place.get(item, 0) > place[history[-1]]]
    order += bool(later) and min(later)[1] == target
    popular += max(candidates, key=often.__getitem__) == target
rates = [hits / len(test) for hits in (order, popular)]
print(f"{len(rows)} rows: {len(users)} ordered pairs, {several} of them of several users, {against} contradicted")
print(f"{len(test)} test rows with {len(test[0][1])} candidates: hit rate at 1 by the order {rates[0]:.3f}, by frequency {rates[1]:.3f}")
assert len(rows) == 5_262 and len(users) == 40_752 and several == 4_210 and against == 0
assert all(len(candidates) == 20 for _, candidates, _ in test) and rates[0] > 0.75 and rates[1] < 0.3
PY
