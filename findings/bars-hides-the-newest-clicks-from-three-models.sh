#!/usr/bin/env bash
# BARS (commit 5b5e61f), MicroVideo1.7M: the table compares DIEN, DMIN and DMR, which never see a user's 28 newest clicks, with models that do.
#
# Guess: all rows of a benchmark's table have the same data; `padding: post` in the settings of three models, which need the zeros behind, says
#   where zeros stand, and `max_len: 100` that a history has its newest 100 items, as with `padding: pre` in the settings of the others.
# Seen: in FuxiCTR (2.0.1 to 2.0.3, which the rows were made with, are the same in this) `padding` also says which end is cut off. The files
#   hold a user's newest 128 clicks, newest last (reczoo/Datasets, commit 71dc577). Of these, 14 models get the clicks 29 to 128 and these three
#   1 to 100, so 28 of 100 differ, and a new click is read only after 28 more. Users with up to 100 clicks are the same for all. On the
#   other three data sets DIEN has a higher AUC than DIN; here DIN is second of 16 and DIEN 14th (whether for this reason isn't shown). And
#   settings that name no padding cut off the newest, too: what such a user does after the first `max_len` items changes nothing.
# Fails if that changes. (Installs 300 MB. BARS_SOURCE and DATASETS_SOURCE may name local copies of the repositories.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bars=5b5e61fe2e4ddf676dd12984365da0ae775fb863
git clone --quiet --no-checkout "${BARS_SOURCE:-https://github.com/reczoo/BARS}" "$work/bars"
git clone --quiet --no-checkout "${DATASETS_SOURCE:-https://github.com/reczoo/Datasets}" "$work/datasets"
git -C "$work/datasets" show 71dc5774c14decbdbe3da38ba93e12c6b6be00b0:MicroVideo/MicroVideo1.7M_x1/convert_microvideo1.7m_x1.py > "$work/convert.py"
grep --quiet '^sequence_maxlen = 128$' "$work/convert.py"
grep --quiet '\.join(clicked_items_queue\[x\]\[-sequence_maxlen:\])' "$work/convert.py"
mkdir "$work/settings" "$work/tables"
git -C "$work/bars" ls-tree -r --name-only "$bars" ranking/ctr | grep '_microvideo1\.7m_x1/.*/dataset_config\.yaml$' | while read -r path; do
  git -C "$work/bars" show "$bars:$path" > "$work/settings/$(cut -d/ -f4 <<< "$path").yaml"
done
for data in amazonelectronics kuaivideo microvideo1.7m taobaoad; do
  git -C "$work/bars" show "$bars:docs/CTR/leaderboard/${data}_x1.csv" > "$work/tables/$data.csv"
done
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fuxictr==2.0.2 numpy==1.26.4 pandas==2.2.3 scikit-learn==1.5.2 \
  h5py==3.12.1 PyYAML==6.0.2
for version in 2.0.1 2.0.3; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$work/$version" fuxictr==$version
  for module in feature_processor utils; do
    cmp "$work/$version/fuxictr/preprocess/$module.py" "$work"/venv/lib/python3*/site-packages/fuxictr/preprocess/$module.py
  done
done
TQDM_DISABLE=1 OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" - "$work" <<'PY'
import collections
import sys
from pathlib import Path

import pandas as pd
import yaml
from fuxictr.preprocess import FeatureProcessor

work = Path(sys.argv[1])
clicks = [str(number) for number in range(1, 129)]
frame = pd.DataFrame({"clicked_items": ["^".join(clicks)], "is_click": [1.0]})


def read(name: str, column: dict) -> tuple[int, int, int]:
    """The first, the last and the number of the clicks that a model gets with these settings of the column."""
    processor = FeatureProcessor([column], {"name": "is_click", "dtype": "float"}, dataset_id=name, data_root=str(work / "processed"))
    processor.fit(frame)
    words = {number: word for word, number in processor.processor_dict["clicked_items::tokenizer"].vocab.items()}
    row = [int(words[number]) for number in processor.transform(frame)["clicked_items"][0]]
    assert row == sorted(row)
    return row[0], row[-1], len(row)


seen: dict[tuple[int, int, int], set[str]] = collections.defaultdict(set)
for path in sorted((work / "settings").iterdir()):
    (settings,) = yaml.safe_load(path.read_text()).values()
    (column,) = [column for column in settings["feature_cols"] if column["name"] == "clicked_items"]
    column = {key: value for key, value in column.items() if key != "pretrained_emb"}
    seen[read(path.stem, column)].add(path.stem.removesuffix("_microvideo1.7m_x1"))
    del column["padding"]
    assert read(f"{path.stem} without padding", column) == (1, 100, 100)
places = {}
for path in (work / "tables").iterdir():
    ranks = pd.read_csv(path).set_index("Model")["AUC"].rank(ascending=False).astype(int)
    places[path.stem] = (int(ranks["DIEN"]), int(ranks["DIN"]), len(ranks))
print("first and last click that is read, and how many, of 128:", {key: sorted(models) for key, models in seen.items()})
print("places of DIEN and DIN by AUC, and models in the table:", places)
assert seen[1, 100, 100] == {"DIEN", "DMIN", "DMR"} and len(seen[29, 128, 100]) == 14 and len(seen) == 2
assert places.pop("microvideo1.7m") == (14, 2, 16) and all(dien < din for dien, din, _ in places.values())
PY
