"""How large a day is: the shapes of a GPU that serves, or those of a rehearsal on any machine.

Invariant: a rehearsal runs the same parts with the same code, and only the numbers here are smaller.
"""

import sys
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu.run import TRACE, UNTRACED
from benchmarks.gpu.scripted_run import FEWEST_FOR_P99, FEWEST_TURNS, Case
from benchmarks.gpu.timing import WIDE
from benchmarks.systems.shapes import SHAPES, THREE_LEVELS, CatalogShape, Shape
from benchmarks.systems.trace import Trace, TraceRound, TraceRun
from drafting.errors import SetupError

THREE_SMALL_LEVELS = CatalogShape((16, 16, 16), (16, 120, 300), (0, 0, 0))


@dataclass(frozen=True)
class ScriptedShape:
    """Cases of a shape that follow an acceptance trace.

    Attributes:
        name: of the shape.
    """

    name: str
    shape: Shape
    cases: tuple[Case, ...]
    trace: Trace


@dataclass(frozen=True)
class Scale:
    """Sizes of all parts.

    Attributes:
        searches: timed searches per plan.
        turns: the fewest batches that they make.
        wide, paper, long, graphs: NVIDIA's, the paper's and FlashRec's shapes, and the one that is timed with and without CUDA graphs.
        matrix: rows and columns of the products and copies that say what the device can do at best.
        kernel: heads, key/value heads and head sizes, prompts, and the width of trees at three depths.
        exact: the shape of the models whose lists are compared.
        lists: how many lists are compared.
        k: their length.
        bench: name of the shape that is compared with vLLM's own search.
        repeats: lists per length that transformers' `generate` makes.
    """

    device: torch.device
    searches: int
    turns: int
    wide: ScriptedShape
    paper: ScriptedShape
    long: ScriptedShape
    graphs: ScriptedShape
    kernel: tuple[tuple[tuple[int, int, int], ...], tuple[int, ...], int]
    matrix: int
    exact: Shape
    lists: int
    k: int
    bench: str
    repeats: int


def full(device: torch.device) -> Scale:
    """The scale for a GPU of a data centre, which takes it less than nine minutes."""
    qwen, trace = SHAPES["qwen3-1.7b"], Trace.load(TRACE)
    return Scale(
        device=device,
        searches=FEWEST_FOR_P99,
        turns=FEWEST_TURNS,
        wide=ScriptedShape(
            f"qwen3-1.7b{WIDE}", replace(qwen, catalog=THREE_LEVELS), tuple(Case(1000, batch, 256) for batch in (1, 8)), UNTRACED
        ),
        paper=ScriptedShape("llama-7b", SHAPES["llama-7b"], tuple(Case(104, 1, k) for k in (20, 10, 5, 3, 1)), trace),
        long=ScriptedShape("qwen3-1.7b", qwen, (Case(2465, 1, 50), Case(2465, 8, 50)), trace),
        graphs=ScriptedShape("qwen3-1.7b", qwen, (Case(104, 1, 10), Case(104, 1, 20)), trace),
        kernel=(((32, 32, 128), (16, 8, 128), (12, 12, 64)), (1000, 104, 5000), 40),
        matrix=8192,
        exact=SHAPES["small"],
        lists=200,
        k=20,
        bench="small",
        repeats=5,
    )


def rehearsal(device: torch.device) -> Scale:
    """Seconds on any machine."""
    tiny = SHAPES["tiny"]
    script = (TraceRound((6, 6, 6), 1, 2, 19), TraceRound((5,), 1, 0, 7))
    trace = Trace("two made-up users", 4, (TraceRun("auto@100", 3, 6, (script, script)),))
    untraced = Trace("nothing", 3, ())
    wide = ScriptedShape("tiny", replace(tiny, catalog=THREE_SMALL_LEVELS), tuple(Case(24, batch, 12) for batch in (1, 2)), untraced)
    return Scale(
        device=device,
        searches=2,
        turns=1,
        wide=wide,
        paper=ScriptedShape("tiny", tiny, (Case(16, 1, 3), Case(16, 1, 1)), trace),
        long=ScriptedShape("tiny", tiny, (Case(48, 1, 5),), trace),
        graphs=ScriptedShape("tiny", tiny, (Case(16, 1, 3),), trace),
        kernel=(((2, 1, 16),), (24, 16), 4),
        matrix=128,
        exact=tiny,
        lists=6,
        k=4,
        bench="tiny",
        repeats=2,
    )


def scale_of(rehearse: bool) -> Scale:
    """The day's scale on this machine's GPU; a rehearsal's on its processor where it has none.

    Raises:
        SetupError: there is no GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not rehearse:
        raise SetupError(
            f"PyTorch {torch.__version__} of {sys.executable} sees no GPU here: install its CUDA build and a driver, name another Python "
            "by make's GPU_PYTHON, or try the run with --rehearse."
        )
    return (rehearsal if rehearse else full)(device)
