"""What an engine says that is ready, where no test depends on it, and what it hands over for prompts."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models

from drafting.beam.rule import Normalisation
from drafting.catalog.builder import catalog_of
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from server.engine.prompts import write_prompts
from server.messages import PlacesLimit, PromptFiles, Ready
from verification.result import Precision

# `prompts` are of an engine that is gone: its file is nowhere.
READY = Ready(
    model="tiny",
    catalog_version="v1",
    max_items=5,
    total_slots=10,
    drafts=True,
    identifier_length=4,
    forward_seconds=0.001,
    token_seconds=0.0001,
    step_tokens=1000,
    precision=Precision("float32", True),
    normalised=Normalisation.VOCABULARY,
    places=PlacesLimit(1, 0),
    prompts=PromptFiles("/nowhere/tokenizer.json", "no digest", {}, None, None, {}, False, None),
)


def write_fake_prompts(directory: Path, max_items: int = 5) -> PromptFiles:
    """What prompts of items of `tests.models.random_catalog` are made with, by a tokenizer that knows their codes alone."""
    catalog = catalog_of({f"item-{code}": [f"<{level}_{code}>" for level in "abc"] for code in range(8)})
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in sorted(catalog.tokens)])
    form = PromptTemplate(max_items=max_items, add_bos=False)
    return write_prompts(PromptBuilder(form, PromptTokenizer(tokenizer), catalog), directory)
