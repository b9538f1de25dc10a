#!/usr/bin/env bash
# LLMRank's published candidates for Games (commit 5ec1154): 43% of SASRec's lists, and 48% of BPR's, begin with an item that the user has
# had, though no target ever is one; without those items their hit rate at 1 is more than twice as high.
#
# Guess: nobody reviews a game twice in these data, so the lists of the models that stand beside the LLM, and the candidates that they hand
#   to it, hold what the user has not had, as RecBole, which ranks them, does for BPR unless it is told otherwise.
# Seen: of the 6,000 users not one has the target in the history. 36% of SASRec's lists begin with the very last item of the history. Taking
#   the items of the history out of the published lists changes the hit rate at 1 from 0.0133 to 0.0277 (SASRec), from 0.0117 to 0.0183
#   (GRU4Rec) and from 0.0055 to 0.0143 (BPR), and at 10 from 0.098 to 0.108, from 0.085 to 0.095 and from 0.055 to 0.068. Of the 21
#   candidates that are mixed from seven sources 3.1 are in the history, so a ranker that only leaves those to the end is ahead of the
#   lists beside it. The settings say `repeatable: True`, for data in which nothing is repeated.
# Fails if that changes. (LLMRANK_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${LLMRANK_SOURCE:-https://github.com/RUCAIBox/LLMRank}" "$work/data"
git -C "$work/data" checkout --quiet 5ec1154cb74cbf68ed5721212f1d7e79336c39c7 -- \
  llmrank/props/overall.yaml llmrank/dataset/Games-6k/Games-6k.{test.inter,bpr,gru4rec,sasrec,rabmbepobpgrsa_3}
cd "$work/data/llmrank/dataset/Games-6k"
grep --quiet '^repeatable: True' ../../props/overall.yaml
python3 - <<'PY'
def lists(source: str) -> dict[str, list[str]]:
    with open(f"Games-6k.{source}") as lines:
        return {user: items.split() for user, items in (line.split("\t") for line in lines)}


with open("Games-6k.test.inter") as lines:
    next(lines)
    histories, targets = {}, {}
    for line in lines:
        user, history, target = line.split("\t")
        histories[user], targets[user] = history.split(), target.strip()


def rate(found: dict[str, list[str]], k: int) -> float:
    return sum(targets[user] in items[:k] for user, items in found.items()) / len(found)


seen = {}
for source in ("sasrec", "gru4rec", "bpr"):
    found = lists(source)
    assert len(found) == 6_000 and not any(targets[user] in histories[user] for user in found)
    first = sum(items[0] in histories[user] for user, items in found.items()) / len(found)
    last = sum(items[0] == histories[user][-1] for user, items in found.items()) / len(found)
    new = {user: [item for item in items if item not in histories[user]] for user, items in found.items()}
    seen[source] = first, last, rate(new, 1) / rate(found, 1)
    rates = ", ".join(f"HR@{k} {rate(found, k):.4f}, without {rate(new, k):.4f}" for k in (1, 10))
    print(f"{source}: the first item has been had {first:.3f} (it is the last one {last:.3f}); {rates}")
mixed = lists("rabmbepobpgrsa_3")
had = sum(item in histories[user] for user, items in mixed.items() for item in items) / len(mixed)
print(f"mixed candidates: {had:.2f} of {len(next(iter(mixed.values())))} have been had")
assert seen["sasrec"][0] > 0.42 and seen["sasrec"][1] > 0.35 and seen["bpr"][0] > 0.47
assert seen["sasrec"][2] > 2 and seen["bpr"][2] > 2.5 and seen["gru4rec"][2] > 1.5 and had > 3
PY
