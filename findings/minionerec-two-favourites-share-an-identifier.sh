#!/usr/bin/env bash
# MiniOneRec's published data (commit 81b4ba9): the two most frequent items of the Industrial test set have one and the same identifier.
#
# Guess: identifiers that are shared by 31 of 3,686 items (0.8%) touch about as many of the test cases, so hits by identifier, as its `calc.py`
#   counts them, and hits by item, as its SASRec baseline counts them, may stand in one table.
# Seen: 7.0% of the test cases (317 of 4,533) have a shared identifier as target. Items 181 and 182, the same hygrometer listed twice with
#   the same title and text, are the targets of 132 and 68, more than any other item, so one entry of a list hits 4.4% of all cases, where
#   an entry of a list of items hits 2.9% at most. One list for everybody, the ten items most frequent in the validation set, has a hit rate
#   at 10 of 0.068, and the ten identifiers most frequent there 0.075. Of Office_Products, made alike, 1.7% of the cases are touched.
# Fails if that changes. (MINIONEREC_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${MINIONEREC_SOURCE:-https://github.com/AkaliKong/MiniOneRec}" "$work/data"
git -C "$work/data" checkout --quiet 81b4ba9811cfb152cf161f1c486fe516510d081e -- \
  data/Amazon/index/{Industrial_and_Scientific,Office_Products}.{index,item}.json \
  data/Amazon/{valid,test}/{Industrial_and_Scientific,Office_Products}_5_2016-10-2018-11.csv
cd "$work/data/data/Amazon"
python3 - <<'PY'
import csv
import json
from collections import Counter


def read(category: str) -> tuple[dict, dict, list[str], list[str]]:
    """Identifiers and texts by item, and the target items of the validation and the test set."""
    index, items = (json.load(open(f"index/{category}.{kind}.json")) for kind in ("index", "item"))
    parts = (csv.DictReader(open(f"{part}/{category}_5_2016-10-2018-11.csv")) for part in ("valid", "test"))
    valid, test = ([row["item_id"] for row in part] for part in parts)
    return {item: "".join(codes) for item, codes in index.items()}, items, valid, test


csv.field_size_limit(2**30)
for category in ("Industrial_and_Scientific", "Office_Products"):
    identifiers, items, valid, test = read(category)
    uses = Counter(identifiers.values())
    shared = {item for item, identifier in identifiers.items() if uses[identifier] > 1}
    touched = sum(item in shared for item in test)
    by_item, by_identifier = Counter(test), Counter(identifiers[item] for item in test)
    popular = {item for item, _ in Counter(valid).most_common(10)}
    named = {identifier for identifier, _ in Counter(identifiers[item] for item in valid).most_common(10)}
    hits = sum(item in popular for item in test), sum(identifiers[item] in named for item in test)
    rates = [round(count / len(test), 3) for count in hits]
    print(f"{category}: {len(shared)} of {len(items)} items share an identifier, targets of {touched} of {len(test)} test cases")
    print(f"  most frequent: {by_item.most_common(2)}, {by_identifier.most_common(1)}; hit rate at 10 of a list for everybody: {rates}")
    if category == "Industrial_and_Scientific":
        assert (len(shared), len(items), touched, len(test)) == (31, 3_686, 317, 4_533)
        assert by_item.most_common(2) == [("181", 132), ("182", 68)] and identifiers["181"] == identifiers["182"]
        assert items["181"] == items["182"] and by_identifier.most_common(1)[0][1] == 200 and rates[1] > 1.1 * rates[0]
PY
