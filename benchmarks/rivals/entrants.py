"""Who takes part: each rival with its environment, and the forms in which it is asked.

Invariant: a form says in one sentence what is asked, and with which lists its own may be compared; those of a system that knows no catalog
are compared with none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.rivals.environment import Environment, Repository

TORCH = "torch==2.13.0+cpu"
# Our own engine among the rivals; the labels of its forms begin with it.
OURS = "atspeed"
# What lists are held against: ours in float32, plain search, normalised over the vocabulary or over the children of each prefix.
VOCABULARY, CHILDREN = f"{OURS}/transformers", f"{OURS}/transformers, over children"
STATIC = Repository("https://github.com/youtube/static-constraint-decoding", "c24f9dc8b9b8045716fff7ef750a1f0cb31c6f57")
BEAMSD = Repository("https://github.com/transcend-0/BeamSD", "819df1bb07fa8d113d264206a41e509af12c1e0e")
# The torchvision that optimum-intel asks for is built for CUDA, and transformers can't be imported beside it.
OPENVINO = Environment(
    (TORCH, "openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "optimum-intel==2.2.0", "nncf==3.4.0"),
    removed=("torchvision",),
)
DRAFTS = 40
PLAIN = {"plan": "none"}


@dataclass(frozen=True)
class Rival:
    """A library.

    Attributes:
        worker: file of `workers` that drives it.
        families: model types that it can load; empty for all.
    """

    name: str
    worker: str
    environment: Environment = field(default_factory=Environment)
    families: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Entrant:
    """A rival in one form.

    Attributes:
        load: what the worker is told when it loads; forms that are loaded alike share a process.
        ask: what it is told with each question.
        asked: what is asked, for the reader of the table.
        against: label of the entrant whose lists these should be; None where no catalog is known.
        longest: the longest list that can be asked for.
        needs: module that our own interpreter must have, where it runs in that.
    """

    label: str
    rival: Rival
    asked: str
    load: Mapping[str, Any] = field(default_factory=dict)
    ask: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = VOCABULARY
    longest: int | None = None
    needs: str | None = None

    @property
    def process_key(self) -> tuple[str, ...]:
        """Equal for forms that share a process."""
        return (self.rival.name, *(f"{name}={value}" for name, value in sorted(self.load.items())))


RIVALS = (
    Rival(OURS, "engine.py"),
    Rival("vllm", "vllm_beams.py"),
    Rival("transformers", "generate.py"),
    Rival(
        "beamsd",
        "beamsd.py",
        Environment((TORCH, "transformers==4.44.2", "tokenizers==0.19.1", "safetensors==0.8.0", "numpy==2.2.6"), repository=BEAMSD),
        families=("llama",),
    ),
    Rival("ctranslate2", "ctranslate2_beams.py", Environment((TORCH, "ctranslate2==4.8.5", "transformers==5.19.0", "numpy==2.3.5"))),
    Rival("openvino", "openvino_beams.py", OPENVINO),
)


def entrants(names: Iterable[str]) -> list[Entrant]:
    """All forms of the named rivals, ours first."""
    rivals = {rival.name: rival for rival in RIVALS}
    return [entrant for name in rivals if name in set(names) for entrant in _FORMS[name](rivals[name])]


def _ours(rival: Rival) -> list[Entrant]:
    found = []
    for host in ("transformers", "vllm"):
        name, load = f"{OURS}/{host}", {"host": host, "dtype": "float32", "normalise": "vocabulary"}
        children, half = load | {"normalise": "children"}, load | {"dtype": "bfloat16"}
        drafts, over = {"plan": f"beam:{DRAFTS}"}, "plain search, each step renormalised over what may follow"
        found += [
            Entrant(name, rival, "plain search, float32", load, PLAIN),
            Entrant(f"{name}, N = {DRAFTS}", rival, f"speculative, {DRAFTS} drafts a level", load, drafts, longest=DRAFTS),
            Entrant(f"{name}, auto", rival, "the planner", load, {"plan": "auto"}),
            Entrant(f"{name}, over children", rival, over, children, PLAIN, against=CHILDREN),
            Entrant(f"{name}, bfloat16", rival, "plain search, bfloat16", half, PLAIN),
        ]
    return [replace(entrant, needs=entrant.load["host"]) for entrant in found]


def _vllm(rival: Rival) -> list[Entrant]:
    raw = {"dtype": "float32", "logprobs": "raw_logprobs", "constrained": False}
    grammar, after = "a grammar of the trie over tokens, defaults otherwise", 'the same with `logprobs_mode="processed_logprobs"`'
    masked = raw | {"logprobs": "processed_logprobs", "constrained": True}
    found = [
        Entrant("vllm", rival, "`beam_search`, no catalog", raw, against=None),
        Entrant("vllm, bfloat16", rival, "the same in bfloat16", raw | {"dtype": "bfloat16"}, against=None),
        Entrant("vllm, constrained", rival, grammar, raw | {"constrained": True}),
        Entrant("vllm, constrained after the mask", rival, after, masked, against=CHILDREN),
    ]
    return [replace(entrant, needs="vllm") for entrant in found]


def _transformers(rival: Rival) -> list[Entrant]:
    return [
        Entrant("transformers", rival, "`generate` with `prefix_allowed_tokens_fn`", {"dtype": "float32"}),
        Entrant("transformers, bfloat16", rival, "the same in bfloat16", {"dtype": "bfloat16"}),
    ]


def _beamsd(rival: Rival) -> list[Entrant]:
    return [
        Entrant("beamsd, tree attention", rival, "`beam_search_by_TreeAttn`, no draft", ask={"drafts": 0}),
        Entrant(f"beamsd, N = {DRAFTS}", rival, f"`beam_search_by_SD`, {DRAFTS} drafts a level", ask={"drafts": DRAFTS}, longest=DRAFTS),
    ]


def _unconstrained(rival: Rival) -> list[Entrant]:
    asked = "beam search, no catalog"
    return [
        Entrant(f"{rival.name}, {dtype}", rival, f"{asked}, {dtype}", {"dtype": dtype}, against=None)
        for dtype in ("float32", "bfloat16", "int8")
    ]


_FORMS = {
    OURS: _ours,
    "vllm": _vllm,
    "transformers": _transformers,
    "beamsd": _beamsd,
    "ctranslate2": _unconstrained,
    "openvino": _unconstrained,
}
