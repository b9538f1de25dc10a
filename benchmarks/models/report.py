"""`docs/models.md`: the table of the matrix, with its counts and versions."""

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.markdown import markdown_table
from benchmarks.models.cell import TOLERANCE
from benchmarks.models.checkpoint import HISTORIES, KS, PLANS
from benchmarks.models.run import Cell

MOST_CHARACTERS = 110
HEAD = """# Models

Which model families can be served: look up your model's family in the last table. *equal* means that its lists are those of
transformers' own constrained `generate`; any other cell is the sentence, shortened, in which the server refuses the model when it starts.

`make models` makes this page. For each variant of a family it takes a tiny random checkpoint in float32, {histories} histories of
1 to {histories} items, K = {ks}, and the plans {plans}. *equal*: the same identifiers in the same order, scores to {tolerance:g},
in a batch and alone. A variant is here if it takes another path through its model than its siblings.

{versions}

{counts}
"""


def report(cells: Sequence[Cell], hosts: Sequence[str]) -> str:
    """The page, with a row for each variant."""
    by_place = {(cell.variant, cell.host): cell for cell in cells}
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    rows = [
        (*variant.replace("|", "\\|").split("/", 1), *(_shown(by_place.get((variant, host))) for host in hosts)) for variant in variants
    ]
    counts = [(host, *_counts([cell for cell in cells if cell.host == host])) for host in hosts]
    head = HEAD.format(
        histories=HISTORIES,
        ks=" and ".join(map(str, KS)),
        plans=" and ".join(f"`{plan}`" for plan in PLANS),
        tolerance=TOLERANCE,
        versions=_versions(cells),
        counts=markdown_table(("host", "equal", "refused", "failed", "families equal"), counts),
    )
    return f"{head}\n{markdown_table(('family', 'variant', *hosts), rows)}\n"


def _versions(cells: Sequence[Cell]) -> str:
    """The versions of all cells, with those that most have first."""
    counts = Counter(", ".join(f"{package} {version}" for package, version in cell.versions.items()) for cell in cells)
    return "; ".join(f"{count} cells: {versions}" for versions, count in counts.most_common()) + "."


def _counts(cells: Sequence[Cell]) -> tuple[int, int, int, int]:
    outcomes = Counter(cell.outcome for cell in cells)
    families = {cell.variant.split("/")[0] for cell in cells if cell.outcome == "equal"}
    return outcomes["equal"], outcomes["refused"], sum(not cell.is_right for cell in cells), len(families)


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not tried"
    if cell.outcome == "equal":
        return "equal"
    sentence = cell.detail if cell.outcome == "refused" else f"**{cell.outcome}**: {cell.detail}"
    return _shortened(sentence.replace("|", "\\|"))


def _shortened(sentence: str) -> str:
    """A refusal without the words that all of them have."""
    sentence = re.sub(
        r"^(The model in MODEL \(\S+\)|Models of type \S+ can't be served[^:]*:|The model in MODEL cannot be loaded:) ", "", sentence
    )
    sentence = re.sub(r'^vLLM cannot run this model \(\S+\) here: "(.*)"; try --engine transformers$', r"\1", sentence)
    sentence = sentence.partition(" Supported architectures:")[0]
    sentence = re.sub(r"^(it )?(has|uses) ", "", sentence).removesuffix(".").removesuffix(", which can't be served")
    return sentence if len(sentence) <= MOST_CHARACTERS else f"{sentence[:MOST_CHARACTERS].rstrip()} ..."
