#!/usr/bin/env bash
# CTranslate2 4.8.5: `Generator.generate_batch` counts the prompt as generated unless it is told to leave it out of the result.
#
# Guess: `include_prompt_in_result` decides what is returned and how fast a prompt is read, as its documentation says; the tokens that follow
#   the prompt, and their order, are the same.
# Seen: with the default, True, a prompt of 600 tokens gives no new token: `max_length` is 512 by default and the prompt uses it up. Ten
#   beams return the beginning of the prompt ten times, the first with the score 0.0, the best there is; nothing is raised. And the length
#   penalty divides by prompt and answer together, so it nearly vanishes where sequences differ in length: after 9 of 10 prompts of 40 tokens
#   the best of ten beams is another one than with False, which gives that of transformers 5.19.0 (9 of 10, and after the 600 tokens).
#   Histories of recommenders are long, and a list of nothing new with the best of scores is not noticed by who reads scores.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ctranslate2==4.8.5 transformers==5.19.0 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > search.py <<'PY'
import ctranslate2
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WIDTH, NEW = 10, 8
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"word{number}" for number in range(60))]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
).save_pretrained("model")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=1024, initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
model.lm_head.weight.data[2] *= 1.5  # sequences that end early as well as late
model.save_pretrained("model")
ctranslate2.converters.TransformersConverter("model").convert("converted")
generator = ctranslate2.Generator("converted", intra_threads=1)


def prompt(number: int, length: int) -> list[int]:
    return [1, *(4 + (number * 31 + step * 17) % 60 for step in range(length - 1))]


def search(tokens: list[int], **settings: object) -> ctranslate2.GenerationResult:
    words = [[WORDS[token] for token in tokens]]
    return generator.generate_batch(words, beam_size=WIDTH, num_hypotheses=WIDTH, return_scores=True, **settings)[0]


def reference(tokens: list[int]) -> list[int]:
    """The best of as many beams by transformers, without the end and padding."""
    with torch.no_grad():
        (row,) = model.generate(torch.tensor([tokens]), num_beams=WIDTH, max_new_tokens=NEW, do_sample=False)
    return [token for token in row[len(tokens):].tolist() if token not in (0, 2)]


differing = agreeing = 0
for number in range(10):
    tokens = prompt(number, 40)
    plain = search(tokens, max_length=NEW, include_prompt_in_result=False).sequences_ids[0]
    # The token that a prompt begins with is neither counted nor returned.
    whole = search(tokens, max_length=39 + NEW).sequences_ids[0][39:]
    differing += plain != whole
    agreeing += plain == reference(tokens)
print(f"best after 40 tokens: another with the prompt in the result {differing} of 10; without it as transformers {agreeing} of 10")
long = prompt(0, 600)
found, new = search(long), search(long, max_length=NEW, include_prompt_in_result=False).sequences_ids[0]
print(f"after 600 tokens, {WIDTH} rows: {found.sequences_ids[0][:3]} ... of {len(found.sequences_ids[0])} tokens, score {found.scores[0]}")
print(f"without the prompt in the result: {new}, transformers: {reference(long)}")
assert all(row == long[1:513] for row in found.sequences_ids) and found.scores[0] == 0 and new == reference(long)
assert differing >= 5 and agreeing >= 8
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python search.py 2> errors || { cat errors; exit 1; }
