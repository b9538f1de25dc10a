#!/usr/bin/env bash
# RecBole 1.2.1 sorts by timestamps that it has rounded to two minutes: nearly a third of the users of MovieLens 100k, moved to today, are
# tested on an item that isn't their last.
#
# Guess: "order: TO" with "LS: valid_and_test" sorts a user's interactions by the timestamp of the file, so the last one is the test item,
#   and only ties are left to the order of rows.
# Seen: times become float32 before they are sorted. Seconds since 1970 then are multiples of 64 (until 2004) or 128 (since), milliseconds of
#   131 seconds, and what falls together stays as the file has it. MovieLens 100k as it is: for 149 of 943 users the test item is older than
#   another of their items, and of neighbours in the histories that differ in time 24% stand in the wrong order. The same file, all times
#   moved by 25 years: 277 users and 35%. With places in the order of time (0, 1, 2, …) instead of seconds there is no such user and no such
#   pair. "normalize_all: True", which the bundled configuration of MovieLens 100k has and the default lacks, leaves a few (range / 2^24).
#   Logs of clicks and plays, many within two minutes, fare alike unless their rows are sorted by time: sort the file, or write places.
#   (Its issue 1653 of 2023 tells of the rounding.)
# Fails if that changes. (Installs PyTorch; without Ray, which nothing here needs.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==1.26.4 pandas==2.3.3 scipy==1.15.3 scikit-learn==1.6.1 \
  colorlog==4.7.2 colorama==0.4.4 texttable==1.7.0 pyyaml==6.0.3 tensorboard==2.20.0 thop==0.1.1.post2209072238 tqdm==4.67.1 setuptools==80.9.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps recbole==1.2.1
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from pathlib import Path

import numpy as np
import pandas as pd
import recbole
from recbole.config import Config
from recbole.data import create_dataset

SETTINGS = {
    "data_path": ".", "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None, "use_gpu": False,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}, "state": "CRITICAL",
}
bundled = Path(recbole.__file__).parent / "dataset_example/ml-100k/ml-100k.inter"
ratings = pd.read_csv(bundled, sep="\t", names=["user", "item", "rating", "time"], header=0)
times = ratings.set_index(["user", "item"])["time"].to_dict()
newest = ratings.groupby("user")["time"].max()


def measure(name: str, timestamps: pd.Series) -> tuple[int, int, int]:
    """Users tested on another item than (one of) their newest, and pairs of neighbours in the histories: in the wrong order, and of different time."""
    Path(name).mkdir()
    header = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    ratings.assign(time=timestamps).to_csv(f"{name}/{name}.inter", sep="\t", index=False, header=header)
    _, _, tested = create_dataset(Config(model="SASRec", dataset=name, config_dict=SETTINGS)).build()
    cases = tested.inter_feat
    users, targets = (tested.id2token(field, cases[field].numpy()).astype(int) for field in ("user_id", "item_id"))
    histories = tested.id2token("item_id", cases["item_id_list"].numpy())
    older = sum(times[user, item] < newest[user] for user, item in zip(users, targets))
    gaps = [
        np.diff([times[user, int(item)] for item in items[:length]])
        for user, items, length in zip(users, histories, cases["item_length"].tolist())
    ]
    gaps = np.concatenate(gaps)
    assert len(users) == 943
    return int(older), int((gaps < 0).sum()), int((gaps != 0).sum())


places = ratings["time"].rank(method="dense").astype(int)
found = {
    "seconds": measure("seconds", ratings["time"]),
    "today": measure("today", ratings["time"] + 25 * 365 * 86_400),
    "places": measure("places", places),
}
for name, (older, wrong, pairs) in found.items():
    print(f"{name}: {older} of 943 users tested on an item that isn't their newest; {wrong} of {pairs} pairs in the wrong order ({wrong / pairs:.2f})")
assert found["seconds"][0] == 149 and 0.2 < found["seconds"][1] / found["seconds"][2] < 0.3
assert 240 < found["today"][0] < 320 and 0.3 < found["today"][1] / found["today"][2] < 0.4
assert found["places"][:2] == (0, 0)
PY
