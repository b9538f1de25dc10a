#!/usr/bin/env bash
# peft 0.21.2 on transformers 5.19.0: `add_weighted_adapter` combines the LoRA of two adapters and leaves out the tokens that they were
# trained with, without a word.
#
# Guess: half of an adapter and half of the same adapter are that adapter; what can't be combined is refused, as it is where both adapters
#   have the same module in `modules_to_save`.
# Seen: plain LoRA comes back ("cat" and "svd"; "linear" is documented as rough). With `trainable_token_indices`, as for new codes of items,
#   the combined adapter has the base's rows in the place of the trained ones, and its file has them, too, as if they had been trained: a
#   loss of 0.01 becomes 4.15, nearly the 4.17 of the base. Embeddings or a head in `modules_to_save` are refused only where more than one
#   of the adapters has them: all of an adapter that has them and none of one of plain LoRA loses them as silently.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.19.0 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > combined.py <<'PY'
import warnings

import peft
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

NEW = list(range(40, 64))
KINDS = {
    "LoRA": {},
    "new tokens": {"trainable_token_indices": {"embed_tokens": NEW, "lm_head": NEW}},
    "saved whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
}
TEXTS = torch.randint(40, 64, (8, 12), generator=torch.Generator().manual_seed(0))
torch.set_num_threads(1)
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).save_pretrained("base")


def base() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained("base")


def measured(model: torch.nn.Module) -> tuple[torch.Tensor, float]:
    with torch.no_grad():
        out = model.eval()(input_ids=TEXTS, labels=TEXTS)
    return out.logits, out.loss.item()


def trained(kind: str, steps: int = 60) -> None:
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], **KINDS[kind])
    model = peft.get_peft_model(base(), config)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=TEXTS, labels=TEXTS).loss.backward()
        optimizer.step()
    model.save_pretrained(kind)


def combined(one: str, other: str, weights: list[float], how: str) -> tuple[peft.PeftModel, list[str]]:
    """Two adapters made one, and what peft warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(base(), one, adapter_name="first")
        model.load_adapter(other, adapter_name="second")
        model.add_weighted_adapter(["first", "second"], weights, "both", combination_type=how)
        model.set_adapter("both")
    return model, [str(each.message) for each in told]


def saved(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    """Embeddings and head, or their trained rows, in the file of the combined adapter."""
    model.save_pretrained("saved", selected_adapters=["both"])
    found = load_file("saved/both/adapter_model.safetensors")
    return {name: weights for name, weights in found.items() if ".embed_tokens." in name or ".lm_head." in name}


for kind in KINDS:
    trained(kind)
alone = {kind: measured(peft.PeftModel.from_pretrained(base(), kind)) for kind in KINDS}
rows = {"embed_tokens": base().model.embed_tokens.weight, "lm_head": base().lm_head.weight}
print(f"base: loss {measured(base())[1]:.2f}")
for one, other, weights in (("LoRA", "LoRA", [0.5, 0.5]), ("new tokens", "new tokens", [0.5, 0.5]), ("saved whole", "LoRA", [1.0, 0.0])):
    for how in ("cat", "svd"):
        model, said = combined(one, other, weights, how)
        logits, loss = measured(model)
        apart = (logits - alone[one][0]).abs().max().item()
        print(f"{weights[0]} of {one} and {weights[1]} of {other}, {how}: loss {alone[one][1]:.2f}, combined {loss:.2f}; logits {apart:.3f} apart")
        assert (apart < 1e-3) if one == "LoRA" else (apart > 5 and loss > alone[one][1] + 3), (one, how, apart, loss)
        assert said == [], said
        written = saved(model)
        assert len(written) == (0 if one == "LoRA" else 2), list(written)
        for name, found in written.items():
            expected = rows["lm_head" if ".lm_head." in name else "embed_tokens"]
            assert torch.equal(found, expected if one == "saved whole" else expected[NEW]), name
try:
    combined("saved whole", "saved whole", [0.5, 0.5], "cat")
except ValueError as error:
    print(f"saved whole, twice: {error}")
else:
    raise AssertionError("not refused")
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python combined.py 2> errors || { cat errors; exit 1; }
