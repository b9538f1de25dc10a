"""The parts of a day in the order of their worth.

Invariant: knowing them needs no torch, so that the process that watches over the others starts at once and holds no device.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the day's measurements, which runs in a process of its own.

    Attributes:
        seconds: the most that it may take, with the start of its process and what it has Triton compile; that is kept for later ones.
        title: of its table.
        about: what a reader must know of the figures, in sentences.
        measure: `module:function` of `benchmarks.gpu.day`, which yields what the cases of a scale give that are not done.
    """

    name: str
    seconds: float
    title: str
    about: str
    measure: str


SCRIPTED = (
    "Weights are random; what was drafted, and which of it held, is taken from an acceptance trace or, for none and trie, needs none. So "
    "what the planner (auto) takes to decide and to learn is in no time."
)
EXACTNESS = "Against lists computed one at a time without drafts; a random target, and a draft that is the target with noise."
RELAXED = (
    "Relaxed verification is timed with all children drafted; what a trained draft gains by it, and its Recall, `make truth` measures."
)
KERNEL = (
    "Against PyTorch's operations in float64; trees of three levels, prompts cached. Launched: one after the other from Python, as without "
    "CUDA graphs; the other times are the device's alone, of a recording."
)
NVIDIA = "NVIDIA's shape; published: 17.6 and 93.2 ms for 1 and 8 requests on an H100."
PARTS = {
    part.name: part
    for part in (
        Part("device", 40, "Device", "What this machine is, and what it can do at best.", "device:describe"),
        Part("kernel", 80, "Tree attention", KERNEL, "device:check_kernel"),
        Part("exactness", 90, "The same lists, however computed", EXACTNESS, "lists:compare_lists"),
        Part("nvidia", 70, "Width 256, three levels", f"{NVIDIA} {SCRIPTED}", "scripted:time_wide"),
        Part("paper", 100, "The paper's pair", f"{SCRIPTED} {RELAXED}", "scripted:time_paper"),
        Part("flashrec", 60, "A long prompt", f"FlashRec's shape. {SCRIPTED}", "scripted:time_long"),
        Part("graphs", 60, "CUDA graphs on and off", SCRIPTED, "scripted:time_graphs"),
        Part("generate", 40, "transformers' generate", "The paper's target and catalog, one request at a time.", "lists:time_generate"),
        Part("vllm", 120, "Beside vLLM", "`atspeed-bench bench` with random models.", "beside_vllm:bench_vllm"),
    )
}
