#!/usr/bin/env bash
# transformers 5.19.0 gives an umT5 with a head of its own, and an mT5 without one, other logits than transformers 4.57.6, by a factor.
#
# Guess: a checkpoint that transformers 4 has saved gives the same logits in transformers 5, whichever member of the T5 family it is; T5 does.
# Seen: in transformers 4 all three multiply the head's input by the root of 1 / width where `tie_word_embeddings` is true. In 5 umT5 always
#   does and mT5 never, whatever config.json says. An umT5 with `"tie_word_embeddings": false` keeps its own head and has logits smaller
#   by the root of the width (5.7 with 32, 22.6 with 512), an mT5 with true has them larger by as much. Greedy answers are the same, so the
#   usual look at an answer passes; log-probabilities are of another temperature: beams come in another order, lists are others, and training
#   goes on from another loss. Warned of is, for umT5, only that the weights are not tied.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" transformers==4.57.6 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > family.py <<'PY'
import sys

import torch
import transformers

READ, WRITTEN = torch.tensor([[5, 9, 20, 33, 41, 7, 1]]), torch.tensor([[0, 11, 12]])
WIDTH = 32
EXPECTED = {("T5", True): 1, ("T5", False): 1, ("MT5", True): WIDTH**0.5, ("MT5", False): 1, ("UMT5", True): 1, ("UMT5", False): WIDTH**-0.5}


def logits(model: transformers.PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=READ, decoder_input_ids=WRITTEN).logits[0]


for (family, tied), factor in EXPECTED.items():
    folder, kind = f"{family}-{tied}", getattr(transformers, f"{family}ForConditionalGeneration")
    if sys.argv[1] == "save":
        torch.manual_seed(0)
        settings = {"vocab_size": 64, "d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
        model = kind(getattr(transformers, f"{family}Config")(tie_word_embeddings=tied, **settings))
        for weights in model.parameters():
            weights.data += 0.1 * torch.randn_like(weights)
        model.save_pretrained(folder)
        torch.save(logits(model), f"{folder}.pt")
        continue
    before, now = torch.load(f"{folder}.pt"), logits(kind.from_pretrained(folder))
    seen, off = (now.abs().max() / before.abs().max()).item(), (now - factor * before).abs().max().item()
    print(f"{family}, tied {tied}: logits of transformers {transformers.__version__} are {seen:.3f} times those of before, to {off:.0e}")
    assert off < 1e-3 and abs(seen - factor) < 1e-3, (family, tied)
PY
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
venv/bin/python family.py save 2> errors || { cat errors; exit 1; }
"${pip[@]}" transformers==5.19.0 2> errors || { cat errors; exit 1; }
venv/bin/python family.py read 2> errors || { cat errors; exit 1; }
