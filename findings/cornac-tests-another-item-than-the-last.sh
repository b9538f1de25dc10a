#!/usr/bin/env bash
# Cornac 3.0.1: leave_last_out tests users whose last item is new on an item before it, which validation or training has had as its target.
#
# Guess: the target is the last item of each user, as its documentation says; with `exclude_unknowns=True`, the default, users whose last item
#   nobody has in training are left out of the test, or count as misses.
# Seen: the new item is taken out of the sequence, and what then stands last is asked for. Of the 40,226 users of BERT4Rec's Beauty file
#   (commit 615eaf2), where each user has five items or more and many items have one user, 4,018 (10%) are tested on another item than their
#   last: 3,559 on the very history and target that validation has for them, and 459, whose last two items are new, on those that training
#   has. In the validation set it is 2,892 users (7%), all of them with what was trained on, so a checkpoint that is chosen there is chosen
#   for remembering. Nobody is left out and nothing is said; `exclude_unknowns=False` asks for the last item of each. The targets that are
#   lost are those for which semantic ids are made, new items.
# Fails if that changes. (Installs 450 MB. BERT4REC_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${BERT4REC_SOURCE:-https://github.com/FeiSun/BERT4Rec}" "$work/data"
git -C "$work/data" show 615eaf2004abecda487a38d5b0c72f3dcfcae5b3:data/beauty.txt > "$work/beauty.txt"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cornac==3.0.1 numpy==2.4.6 scipy==1.17.1
OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" - "$work/beauty.txt" <<'PY'
import sys
import warnings
from pathlib import Path

from cornac.data import SequentialDataset
from cornac.eval_methods import NextItemEvaluation

warnings.simplefilter("error")
histories: dict[str, list[str]] = {}
for line in Path(sys.argv[1]).read_text().splitlines():
    user, item = line.split()
    histories.setdefault(user, []).append(item)
rows = [(user, item, 1.0, place) for user, items in histories.items() for place, item in enumerate(items)]


def sequences(part: SequentialDataset) -> dict[str, list[str]]:
    users, items = list(part.sid_map), list(part.iid_map)
    return {users[user]: [items[item] for item in row] for [user], _, [row] in part.si_iter()}


method = NextItemEvaluation.leave_last_out(rows)
train, valid, test = (sequences(part) for part in (method.train_set, method.val_set, method.test_set))
assert len(test) == len(valid) == len(train) == len(histories) == 40226 and all(train[user] == histories[user][:-2] for user in histories)
other = [user for user in histories if test[user][-1] != histories[user][-1]]
known = {item for items in train.values() for item in items}
assert other == [user for user in histories if histories[user][-1] not in known]
trained = [user for user in other if test[user] == train[user]]
chosen = [user for user in other if test[user] == valid[user] != train[user]]
differ = [user for user in histories if valid[user][-1] != histories[user][-2]]
assert all(valid[user] == train[user] for user in differ)
by_default = sequences(NextItemEvaluation.leave_last_out(rows, exclude_unknowns=False).test_set)
print(f"of {len(test)} users tested on another item than their last: {len(other)}, on validation's {len(chosen)}, on training's {len(trained)}")
print(f"validated on another item than their last but one, on training's: {len(differ)}")
print(f"with exclude_unknowns=False all are tested on the last: {by_default == histories}")
assert (len(other), len(chosen), len(trained), len(differ)) == (4018, 3559, 459, 2892) and by_default == histories
PY
