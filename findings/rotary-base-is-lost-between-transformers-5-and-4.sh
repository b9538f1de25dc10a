#!/usr/bin/env bash
# A Llama that transformers 5.19.0 has saved is another model in transformers 4.57.6 and in mlx-lm 0.32.2: both take 10000 for its rotary
# base, without a word.
#
# Guess: a checkpoint that both say they load, with the same names of weights, gives the same logits, or is refused for what is unknown.
# Seen: transformers 5 writes `rope_theta` inside `rope_parameters` alone. The other two ignore that key and fall back to the base of
#   Llama 2. With the base 500000 of Llama 3 the logits of a text of 60 tokens are apart by more than 5 and most of the likeliest next tokens
#   are others; nothing is warned of. With `"rope_theta": 500000.0` written into config.json by hand both agree with transformers 5 to 1e-4.
#   So a recommender trained with one release and served or evaluated with the other loses quality that looks like a bad training run, the
#   more the longer the history.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" transformers==5.19.0 torch==2.13.0 numpy==2.4.6 "mlx[cpu]==0.32.4" mlx-lm==0.32.2
cd "$work"
cat > save.py <<'PY'
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=256, initializer_range=0.2, rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
)
model = LlamaForCausalLM(config).eval()
model.save_pretrained("model")
with torch.no_grad():
    np.save("saved.npy", model(torch.arange(60)[None] * 7 % 97).logits[0].numpy())
PY
cat > read.py <<'PY'
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np


def mlx_lm() -> np.ndarray:
    """Logits `[60, vocabulary]` of the same text."""
    import mlx.core
    from mlx_lm.utils import load_model

    model, _ = load_model(Path("model"))
    return np.array(model(mlx.core.arange(60)[None] * 7 % 97))[0]


def transformers() -> np.ndarray:
    """Logits `[60, vocabulary]` of the same text."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained("model").eval()(torch.arange(60)[None] * 7 % 97).logits[0].numpy()


library = sys.argv[1]
config = Path("model/config.json")
text, saved = config.read_text(), np.load("saved.npy")
assert "rope_theta" not in json.loads(text), "the base is written at the top now"
found = globals()[library]()
config.write_text(json.dumps(json.loads(text) | {"rope_theta": 500000.0}))
mended = globals()[library]()
config.write_text(text)
others = (found.argmax(-1) != saved.argmax(-1)).sum()
print(
    f"{library} {importlib.metadata.version(library.replace('_', '-'))}: logits apart by {np.abs(found - saved).max():.2g}, {others} of 60 next "
    f"tokens are others; with the base at the top apart by {np.abs(mended - saved).max():.1g}"
)
assert np.abs(found - saved).max() > 1 and others > 10 and np.abs(mended - saved).max() < 1e-2
PY
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
venv/bin/python save.py 2> errors || { cat errors; exit 1; }
venv/bin/python read.py mlx_lm
"${pip[@]}" transformers==4.57.6 2> errors || { cat errors; exit 1; }
venv/bin/python read.py transformers
