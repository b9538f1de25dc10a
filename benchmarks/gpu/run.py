"""`make bench-gpu`: what drafting is worth on this device, for models of a size that is really served.

Needs torch, transformers and numpy only, takes less than ten minutes, and runs on a CPU too, with small shapes. Weights are random, because
cost does not depend on them; which drafts hold is taken from an acceptance trace of trained models (`atspeed-bench bench
--record-trace`), and the report says so.
"""

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.gpu.kernel import is_lost
from benchmarks.gpu.report import Report, machine
from benchmarks.gpu.scripted_run import FEWEST_TURNS, Case, ScriptedEngine, room_for, slots_needed
from benchmarks.gpu.timing import WIDE, Timing, failure
from benchmarks.systems.shapes import SHAPES, THREE_LEVELS, Shape, make_identifiers
from benchmarks.systems.trace import Trace, TraceError, TraceRun, balance_of, plain_run, trie_run
from drafting.plans.costs import ForwardCosts
from drafting.trie.item_trie import ItemTrie
from verification.hosts.checkpoint import HostError

logger = logging.getLogger(__name__)

TRACE = Path(__file__).parents[2] / "benchmarks" / "beauty-trace.json"
UNTRACED = Trace("nothing: no plan here needs a trace", len(THREE_LEVELS.level_sizes), ())
PLAIN, TRIE = "none", "trie"
# What activations, masks and the libraries themselves need beside weights, keys and values.
HEADROOM = 0.85

WIDE_HELP = "three levels and no trace; other defaults: qwen3-1.7b (on a CPU small), k 50,256, prompts 300,1000,5000 (on a CPU 300)"
# Beyond it a token costs next to nothing, and a planner drafts all that may help.
MOST_BALANCE = 1e6


@dataclass(frozen=True)
class Options:
    """Settings of a run; see the flags, which `arguments` are. Without a trace, only plans that need none are timed."""

    shapes: dict[str, Shape]
    prompts: list[int]
    batches: list[int]
    ks: list[int]
    plans: list[str] | None
    trace: Path | None
    requests: int
    turns: int
    seconds: float
    device: torch.device
    graphs: bool
    arguments: Sequence[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line says."""
    parser, flags = _parse(arguments)
    device = torch.device(flags.device)
    large = device.type == "cuda"
    names = flags.shape or ((["qwen3-1.7b"] if flags.wide else ["llama-7b", "small"]) if large else ["small"])
    # Scripted models are decoders.
    known = [name for name, shape in SHAPES.items() if shape.target.family != "t5"]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no shape {unknown[0]!r} here: choose {', '.join(known)}.")
    options = Options(
        shapes=_shapes(names, flags.wide),
        prompts=flags.prompt or (([300, 1000, 5000] if flags.wide else [104, 1000]) if large else [300] if flags.wide else [104]),
        batches=flags.batch or ([1, 8, 32] if large else [1, 8]),
        ks=flags.k or ([50, 256] if flags.wide else [1, 3, 5, 10, 20]),
        plans=flags.plans,
        trace=None if flags.wide else flags.trace,
        requests=flags.requests,
        turns=flags.turns,
        seconds=60 * flags.minutes,
        device=device,
        graphs=flags.graphs,
        arguments=sys.argv[1:] if arguments is None else arguments,
    )
    for path in filter(None, (flags.json, flags.markdown)):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for report in run(options):
            if flags.json:
                report.save(flags.json)
            if flags.markdown:
                flags.markdown.write_text(report.markdown())
    except (TraceError, HostError) as error:
        sys.exit(str(error))
    print(report.markdown())


def run(options: Options) -> Iterator[Report]:
    """Time every shape in turn; what does not fit, takes too long or fails is left out with a sentence.

    Yields:
        all that was measured so far, after each case and at the end: a run that is killed has lost no more than the case that it was in.

    Raises:
        TraceError: the trace cannot be read or followed, or has not all plans that are asked for.
        HostError: CUDA graphs are wanted, and not even those of the first shape can be had.
    """
    trace = UNTRACED if options.trace is None else Trace.load(options.trace)
    _check_plans(options.plans or [], trace)
    deadline = time.monotonic() + options.seconds
    timings: list[Timing] = []
    notes: list[str] = []
    command = " ".join(["python -m benchmarks.gpu.run", *options.arguments])
    report = Report(timings, notes, trace.source, machine(options.device), command)
    for name, shape in options.shapes.items():
        try:
            for timed in _time_shape(name, shape, trace, options, deadline, notes):
                timings += timed
                yield report
        except torch.OutOfMemoryError:
            _say(notes, f"{name}: the device ran out of memory, the shape is left out from there on.")
        except HostError as error:
            if options.graphs and not timings:
                raise
            if options.graphs:
                # A failed recording may leave anything on the device: what was timed before it is kept, and nothing is timed after it.
                _say(notes, f"{name} and what would follow are left out. {error}")
                break
            _say(notes, f"{name}: the shape is left out from there on. {error}")
        except TraceError:
            raise
        # A device that nobody has tried yet may throw anything, as a compiler's errors; what was timed before is kept.
        except Exception as error:
            logger.exception("%s failed.", name)
            _say(notes, f"{name}: the shape is left out from there on. {failure(error)}")
            if is_lost(options.device):
                _say(notes, "This process can't use the device any more: what would follow is left out.")
                break
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
    yield report


def _check_plans(names: Sequence[str], trace: Trace) -> None:
    """Refuse plans that the trace does not have and that do need one; `auto` is the planner of any machine."""
    known = dict.fromkeys([PLAIN, TRIE, *(name.partition("@")[0] for name in trace.plans)])
    if unknown := [name for name in names if name not in known]:
        raise TraceError(f"There is no plan {unknown[0]!r} in the trace: choose {', '.join(known)}.")


def _shapes(names: Sequence[str], wide: bool) -> dict[str, Shape]:
    """Shapes by the names under which they are reported; wide beams have identifiers of three tokens."""
    return (
        {f"{name}{WIDE}": replace(SHAPES[name], catalog=THREE_LEVELS) for name in names} if wide else {name: SHAPES[name] for name in names}
    )


def _time_shape(name: str, shape: Shape, trace: Trace, options: Options, deadline: float, notes: list[str]) -> Iterator[list[Timing]]:
    """Yield the lines of one case after another, so that what was timed is kept whatever comes next."""
    cases = _cases_that_fit(name, shape, options, notes)
    if not cases:
        return
    if trace.depth != (depth := len(shape.catalog.level_sizes)):
        raise TraceError(f"The trace is of identifiers of {trace.depth} tokens, but those of the shape {name} have {depth}.")
    if _no_time_left(name, cases, deadline, notes):
        return
    started = time.monotonic()
    engine = ScriptedEngine(name, shape, cases, options.device, options.graphs)
    print(f"{name}: made in {time.monotonic() - started:.0f} s, {len(cases)} cases.", flush=True)
    for sentence in engine.notes:
        _say(notes, sentence)
    try:
        costs = engine.costs(max(case.prompt for case in cases))
        _say_costs(name, costs, notes)
        _say_unrecorded(name, trace, cases, notes)
        for number, case in enumerate(cases):
            if _no_time_left(name, cases, deadline, notes, number):
                break
            timed, lost = engine.time(case, runs_of(trace, case, engine.trie, options.plans, costs), options.requests, turns=options.turns)
            for sentence in lost:
                _say(notes, sentence)
            if timed:
                print(f"{name}: {number + 1}/{len(cases)} {case}: {_best(timed)}", flush=True)
            yield timed
        for model, counts in zip(("target", "draft"), engine.graph_counts(), strict=False):
            every = counts.replayed + counts.skipped
            _say(notes, f"{name}: CUDA graphs replayed {counts.replayed} of {every} forwards of the {model}.")
    finally:
        engine.close()


def _no_time_left(name: str, cases: Sequence[Case], deadline: float, notes: list[str], number: int = 0) -> bool:
    """True, and told, if the case of this number is not to begin any more."""
    if is_late := time.monotonic() > deadline:
        _say(notes, f"{name}: no time was left for {len(cases) - number} of {len(cases)} cases, from {cases[number]} on.")
    return is_late


def _cases_that_fit(name: str, shape: Shape, options: Options, notes: list[str]) -> list[Case]:
    """The cases for which the device has memory; their order puts the small ones first, should time run out."""
    every = [Case(prompt, batch, k) for batch in options.batches for prompt in options.prompts for k in options.ks]
    trie = ItemTrie.build(make_identifiers(shape.catalog))
    vocabulary = shape.target.words + shape.catalog.codes
    weights = shape.target.weight_bytes(vocabulary) + shape.draft.weight_bytes(vocabulary)
    slot = shape.target.slot_bytes() + shape.draft.slot_bytes()
    free = free_memory(options.device)
    fitting = [case for case in every if weights + slot * slots_needed(trie, [case]) <= HEADROOM * free]
    if len(fitting) < len(every):
        gib, most = free / 2**30, max(weights + slot * slots_needed(trie, [case]) for case in every) / HEADROOM / 2**30
        left_out = len(every) - len(fitting)
        _say(notes, f"{name}: {gib:.0f} GiB are free but up to {most:.0f} are needed; {left_out} of {len(every)} cases are left out.")
    if crowded := [case for case in fitting if not room_for(trie, case)]:
        _say(notes, f"{name}: an engine runs fewer wide searches at once; left out are {'; '.join(map(str, crowded))}.")
    return [case for case in fitting if case not in crowded]


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def runs_of(trace: Trace, case: Case, trie: ItemTrie, plans: Sequence[str] | None, costs: ForwardCosts) -> list[TraceRun]:
    """Plain beam search, and every plan that was recorded at this k; of the planners that whose machine is most like this one.

    The children of the trie are drafted whether that was recorded or not: it needs no trace.
    """
    names = [name for name in trace.plans if balance_of(name) is None]
    if planners := [name for name in trace.plans if balance_of(name) is not None]:
        # The tokens of a forward that takes twice its fixed part, which requests share.
        balance = max(costs.target.tokens_within(2 * costs.target.fixed) / case.batch, 1.0)
        names.append(min(planners, key=lambda name: abs(math.log((balance_of(name) or 1) / min(balance, MOST_BALANCE)))))
    wanted = [name for name in dict.fromkeys([*names, TRIE]) if name != PLAIN and (plans is None or name.partition("@")[0] in plans)]
    found = [trace.find(name, case.k) or (trie_run(case.k, trie) if name == TRIE else None) for name in wanted]
    return [plain_run(case.k, trie), *(run for run in found if run is not None)]


def _say_costs(name: str, costs: ForwardCosts, notes: list[str]) -> None:
    draft = f"; a level of the draft {costs.draft}" if costs.draft else ""
    _say(notes, f"{name}: a step with one forward of the target takes {costs.target}{draft}.")


def _say_unrecorded(name: str, trace: Trace, cases: Sequence[Case], notes: list[str]) -> None:
    recorded = {run.k for run in trace.runs}
    if missing := sorted({case.k for case in cases} - recorded):
        widths = ", ".join(map(str, missing))
        _say(notes, f"{name}: the trace has no searches of k {widths}: there only plans that need none are timed, none and trie.")


def _best(timed: Sequence[Timing]) -> str:
    """The result of a case, for the progress line."""
    best = min(timed, key=lambda timing: timing.batch_p50_ms)
    return f"plain {timed[0].batch_p50_ms:.1f} ms, best {best.plan} {best.batch_p50_ms:.1f} ms"


def _say(notes: list[str], sentence: str) -> None:
    notes.append(sentence)
    print(sentence, flush=True)


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.run", description="Time drafting on random models.")
    parser.add_argument("--shape", type=_words, help="shapes, separated by commas (default: llama-7b,small; on a CPU small)")
    parser.add_argument("--prompt", type=_numbers, help="prompt tokens, separated by commas (default: 104,1000; on a CPU 104)")
    parser.add_argument("--batch", type=_numbers, help="requests at once, separated by commas (default: 1,8,32; on a CPU 1,8)")
    parser.add_argument("--k", type=_numbers, help="list lengths, separated by commas (default: 1,3,5,10,20)")
    parser.add_argument("--wide", action="store_true", help=WIDE_HELP)
    parser.add_argument("--plans", type=_words, help="plans of the trace, separated by commas (default: all); none always runs")
    parser.add_argument("--trace", type=Path, default=TRACE, help="acceptance trace (default: the paper's Beauty data, SFT draft)")
    parser.add_argument("--requests", type=int, default=20, help="timed requests per plan")
    parser.add_argument("--turns", type=int, default=FEWEST_TURNS, help="fewest timed batches per plan")
    parser.add_argument("--minutes", type=float, default=8, help="start no further case after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--graphs", action="store_true", help="record forwards of target and draft as CUDA graphs first")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    parser.add_argument("--markdown", type=Path, help="write the report's text to this file")
    return parser, parser.parse_args(arguments)


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"whole numbers from 1 on are wanted, got {text!r}")
    return numbers


if __name__ == "__main__":
    main()
