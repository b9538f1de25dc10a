#!/usr/bin/env bash
# optimum-quanto 0.2.7 on transformers 4.57.6: `save_pretrained` of a quantised T5 changes the model that is saved, in memory and in the file:
# its logits grow by the root of its width.
#
# Guess: saving reads a model and writes it; what is measured before is what is served from the directory, and what the same process goes on
#   to compute.
# Seen: quantising the head of a tied T5 gives it a weight of its own, so on saving `tie_word_embeddings` is set to False in the config of the
#   model itself, for a good reason. But T5 takes the same setting for whether the head's input is divided by the root of `d_model`. With a
#   width of 128 (TIGER's) logits are 11.3 times as large after the save, those of the directory as well; with T5-small's 512 they would be
#   22.6 times as large. The likeliest next tokens are the same, so a look at greedy answers shows nothing; of a beam search's ten sequences
#   four are others, where quantising changed one in a hundred, and probabilities are near 0 and 1. With exclude="lm_head", a T5 with a head of
#   its own, or a tied Qwen3 nothing changes. Nothing is said. Setting `tie_word_embeddings` back to True, after a load too, mends it.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check optimum-quanto==0.2.7 transformers==4.57.6 accelerate==1.15.0 torch==2.13.0 \
  numpy==2.4.6
cat > "$work/save.py" <<'PY'
import warnings

import torch
from optimum.quanto import QuantizedModelForCausalLM, QuantizedTransformersModel, qint8
from transformers import AutoModelForSeq2SeqLM, Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration

warnings.simplefilter("error", UserWarning)
WIDTH, CODES, USERS, BEAMS = 128, 64, 20, 10


class QuantizedT5(QuantizedTransformersModel):
    auto_class = AutoModelForSeq2SeqLM


def t5(**options: bool) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    shape = {"d_model": WIDTH, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(vocab_size=CODES, decoder_start_token_id=0, **shape, **options)).eval()


def qwen3() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=CODES, tie_word_embeddings=True, initializer_range=0.3, **shape)).eval()


torch.set_num_threads(1)
ids = torch.randint(2, CODES, (USERS, 12), generator=torch.Generator().manual_seed(1))


def measured(model: torch.nn.Module) -> tuple[torch.Tensor, list[list[tuple[int, ...]]]]:
    """Logits, and ten sequences of three tokens for each user."""
    t5s = model.config.is_encoder_decoder
    with torch.no_grad():
        logits = model(input_ids=ids, **({"decoder_input_ids": ids[:, :3]} if t5s else {})).logits
        how = {"num_beams": BEAMS, "num_return_sequences": BEAMS, "min_new_tokens": 3, "max_new_tokens": 3, "pad_token_id": 0}
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[:, -3:]
    return logits, [[tuple(each) for each in rows] for rows in found.view(USERS, BEAMS, 3).tolist()]


def kept(lists, others) -> float:
    return sum(len(set(one) & set(other)) for one, other in zip(lists, others)) / (USERS * BEAMS)


cases = {
    "tied T5": (t5(), QuantizedT5, None),
    "tied T5, head excluded": (t5(), QuantizedT5, "lm_head"),
    "T5 with a head": (t5(tie_word_embeddings=False), QuantizedT5, None),
    "tied Qwen3": (qwen3(), QuantizedModelForCausalLM, None),
}
for name, (model, kind, exclude) in cases.items():
    exact, best = measured(model)
    quantised = kind.quantize(model, weights=qint8, exclude=exclude)
    before, lists = measured(quantised)
    quantised.save_pretrained(name)
    saved, saved_lists = measured(quantised)
    read, read_lists = measured(kind.from_pretrained(name))
    times = [(each.std() / before.std()).item() for each in (saved, read)]
    print(f"{name}: quantised {kept(lists, best):.2f} of the lists kept; after the save logits times {times[0]:.2f}, {kept(saved_lists, lists):.2f} kept;"
          f" read back times {times[1]:.2f}, {kept(read_lists, lists):.2f} kept; tie_word_embeddings {quantised.config.tie_word_embeddings}")
    assert (before.argmax(-1) == exact.argmax(-1)).float().mean() > 0.9
    assert (saved.argmax(-1) == before.argmax(-1)).all() and (read.argmax(-1) == before.argmax(-1)).all()
    if name == "tied T5":
        assert torch.allclose(saved, before * WIDTH**0.5, rtol=1e-3, atol=1e-3) and torch.allclose(read, saved, rtol=1e-3, atol=1e-3)
        assert kept(lists, best) > 0.8 and kept(saved_lists, lists) < 0.7 and kept(read_lists, lists) < 0.7
        for changed in (quantised, kind.from_pretrained(name)):
            changed.config.tie_word_embeddings = True
            assert torch.allclose(measured(changed)[0], before, atol=1e-4)
    else:
        assert torch.allclose(saved, before) and torch.allclose(read, before, atol=1e-4)
PY
cd "$work"
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python save.py 2> errors || { cat errors; exit 1; }
