#!/usr/bin/env bash
# peft 0.21.2 on transformers 5.19.0: of two adapters of a tied model that train its embeddings with `ensure_weight_tying=True`, the one
# that is loaded second answers through the head of the untrained base.
#
# Guess: `load_adapter` and `set_adapter` give each adapter as it is alone, in whichever order they were loaded: one base with an adapter
#   for films and one for books is what they are there for. `ensure_weight_tying` is what peft itself asks for, in a warning, where the
#   embeddings of a tied model are trained, as new codes of items need it.
# Seen: the second adapter has its embeddings and no head: none is tied to them, and the one in its file is passed over. Losses of 0.05 to
#   0.65 become 4.0, nearly the 4.2 of the base, and the likeliest next token is another one at more than two thirds of the places. Loaded
#   the other way round, it is the other adapter that is lost. So it is with `modules_to_save=["embed_tokens"]`, where a warning says that
#   no tied modules were found in the model, and with LoRA of "embed_tokens", where no warning comes; what `load_adapter` returns names the
#   weights of the head among the unexpected keys. `trainable_token_indices` is right in either order, and so are embeddings and head that
#   are both saved without `ensure_weight_tying`.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.19.0 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > second.py <<'PY'
import warnings

import peft
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

NEW = list(range(50, 64))
KINDS = {
    "embeddings saved": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "LoRA of embeddings": {"target_modules": ["q_proj", "v_proj", "embed_tokens"], "ensure_weight_tying": True},
    "new tokens": {"trainable_token_indices": {"embed_tokens": NEW}, "ensure_weight_tying": True},
    "both saved, untied": {"modules_to_save": ["embed_tokens", "lm_head"]},
}
TEXTS = {name: torch.randint(0, 64, (8, 12), generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate(["films", "books"])}
torch.set_num_threads(1)
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
Qwen3ForCausalLM(Qwen3Config(vocab_size=64, tie_word_embeddings=True, **shape)).save_pretrained("base")


def base() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained("base")


def measured(model: torch.nn.Module, name: str) -> tuple[torch.Tensor, float]:
    """Logits and loss of the texts that an adapter was trained on."""
    with torch.no_grad():
        out = model.eval()(input_ids=TEXTS[name], labels=TEXTS[name])
    return out.logits, out.loss.item()


def trained(name: str, options: dict) -> tuple[torch.Tensor, float]:
    """Trains and saves an adapter; what it gives alone, read back from its files."""
    model = peft.get_peft_model(base(), peft.LoraConfig(r=4, task_type="CAUSAL_LM", **{"target_modules": ["q_proj", "v_proj"], **options}))
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=TEXTS[name], labels=TEXTS[name]).loss.backward()
        optimizer.step()
    model.save_pretrained(name)
    return measured(peft.PeftModel.from_pretrained(base(), name), name)


for kind, options in KINDS.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = {name: trained(name, options) for name in TEXTS}
    for order in (["films", "books"], ["books", "films"]):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model = peft.PeftModel.from_pretrained(base(), order[0], adapter_name=order[0])
            before = len(told)
            unexpected = model.load_adapter(order[1], adapter_name=order[1]).unexpected_keys
        said = [str(each.message) for each in told[before:]]
        for name in order:
            model.set_adapter(name)
            logits, loss = measured(model, name)
            apart = (logits - alone[name][0]).abs().max().item()
            other = (logits.argmax(-1) != alone[name][0].argmax(-1)).float().mean().item()
            untrained = measured(base(), name)[1]
            print(f"{kind}, {' then '.join(order)}: {name} alone {alone[name][1]:.2f}, here {loss:.2f}, base {untrained:.2f}; {other:.0%} other tokens")
            lost = name == order[1] and kind in ("embeddings saved", "LoRA of embeddings")
            inputs = torch.randn(4, 32)
            assert torch.allclose(model.get_output_embeddings()(inputs), base().lm_head(inputs), atol=1e-5) == lost, (kind, order, name)
            assert (loss > alone[name][1] + 1.5 and apart > 2 and other > 0.5) if lost else apart < 1e-3, (kind, order, name, apart)
        assert bool(unexpected) == (kind in ("embeddings saved", "LoRA of embeddings")), unexpected
        assert all(".lm_head." in each for each in unexpected), unexpected
        assert any("no tied modules were found" in each for each in said) == (kind == "embeddings saved"), said
        assert kind != "LoRA of embeddings" or said == [], said
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python second.py 2> errors || { cat errors; exit 1; }
