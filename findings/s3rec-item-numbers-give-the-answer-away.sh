#!/usr/bin/env bash
# The sequence files that generative recommenders are compared on (S3-Rec's Amazon Beauty, Sports, Toys, commit 2a81540) name the answer:
# the item whose number follows the highest one of a history is the target of every 23rd user, of every third among the first tenth of users.
#
# Guess: item numbers are arbitrary, so "highest number of the history, plus one" hits the last item of one user in 10,000.
# Seen: items are numbered in the order in which they first appear, user by user, the held-out items among them. One guess without a model
#   hits 4.4% of the users of Beauty (986 of 22,363), 4.1% of Sports, 4.4% of Toys, 3.2% of Yelp and 6.2% of LastFM; the five most frequent
#   items together hit 0.6 to 0.7% of the users of the Amazon sets. Of the first tenth of the users the guess hits 27 to 40%. Models that see
#   numbers as text or as digits, and identifiers that break ties by number, can read them. Number items anew, at random, before a prompt
#   has them.
# Fails if that changes. (S3REC_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${S3REC_SOURCE:-https://github.com/RUCAIBox/CIKM2020-S3Rec}" "$work/data"
git -C "$work/data" checkout --quiet 2a81540ae18615d88ef88227b0c066e5b74781e5 -- \
  data/{Beauty,Sports_and_Outdoors,Toys_and_Games,Yelp,LastFM}.txt
cd "$work/data/data"
python3 - <<'PY'
from collections import Counter
from itertools import chain

TESTED = {"Beauty": (22_363, 986), "Sports_and_Outdoors": (35_598, 1_474), "Toys_and_Games": (19_412, 845), "Yelp": (30_431, 973), "LastFM": (1_090, 68)}


def read(name: str) -> list[list[int]]:
    """The items of each user in order of time; the last one is the target of the test."""
    with open(f"{name}.txt") as lines:
        return [[int(item) for item in line.split()[1:]] for line in lines]


for name, expected in TESTED.items():
    sequences = read(name)
    hits = [items[-1] == max(items[:-1]) + 1 for items in sequences]
    tenth = hits[: len(hits) // 10]
    frequent = {item for item, _ in Counter(chain.from_iterable(items[:-2] for items in sequences)).most_common(5)}
    popular = sum(items[-1] in frequent for items in sequences) / len(sequences)
    appearance = list(dict.fromkeys(chain.from_iterable(sequences)))
    print(f"{name}: one guess by number hits {sum(hits)} of {len(hits)} users ({sum(hits) / len(hits):.3f}), "
          f"{sum(tenth) / len(tenth):.2f} of the first tenth; the five most frequent items hit {popular:.3f}")
    assert (len(hits), sum(hits)) == expected and sum(tenth) / len(tenth) > 0.25
    assert appearance == sorted(appearance) and sum(hits) / len(hits) > 2 * popular
PY
