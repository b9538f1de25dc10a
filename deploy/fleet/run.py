"""`make fleet-check`: random changes by random replicas while these and the Redis master are killed and stopped; nothing that was
acknowledged may be lost, and no list may be wrong.

Run:  python -m deploy.fleet.run --seeds 20
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks.endings import end_on_sigterm
from deploy.checks.findings import Findings
from deploy.fleet.large import measure_large
from deploy.fleet.measure import measure
from deploy.fleet.report import write_report
from deploy.fleet.trial import Ground, Outcome, run_trial, started


def main(
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=0)] = 20,
    first: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    writes: Annotated[int, typer.Option(help="Changes of each seed.", min=1)] = 300,
    again: Annotated[bool, typer.Option(help="Run seeds that fleet.json has already once more.")] = False,
    measured: Annotated[bool, typer.Option(help="Measure a fleet without faults first.")] = True,
    items: Annotated[int, typer.Option(help="Items of a version that a fleet without faults activates; 0 for none.", min=0)] = 1_000_000,
    replicas: Annotated[int, typer.Option(help="Server processes.", min=1)] = 3,
    out: Annotated[Path, typer.Option(help="Directory for fleet.json and fleet.md.", file_okay=False)] = Path("docs/results"),
    keep: Annotated[Path | None, typer.Option(help="Directory in which the logs of all programs stay.", file_okay=False)] = None,
) -> None:
    """Kill and stop servers and their Redis while clients change filters and catalogs, and judge what they saw (three minutes a seed).

    Seeds share a fleet behind Envoy, on a Redis of its own with Sentinel, until one breaks a promise; the next begins with another. Before,
    a fleet without faults is measured: how soon all have a change, a further replica under load, FLUSHALL and `atspeed control restore`,
    and whether a list fails while a version of a million items is activated. The exit status is 1 if a promise was broken. Each seed is
    written down when it ends, and seeds that fleet.json has already are passed over, so a run that was ended goes on where it was.

    Example: python -m deploy.fleet.run --seeds 1 --writes 60 --replicas 2 --out /tmp
    """
    end_on_sigterm()
    findings = Findings()
    if measured:
        measure(replicas, findings)
        if items:
            measure_large(replicas, items, findings)
    for folder in (out, keep):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    file = out / "fleet.json"
    outcomes = {each.seed: each for each in msgspec.json.decode(file.read_bytes(), type=list[Outcome])} if file.exists() else {}
    for outcome in run_trials((seed for seed in range(first, first + seeds) if again or seed not in outcomes), replicas, writes, keep):
        outcomes[outcome.seed] = outcome
        ordered = [outcomes[each] for each in sorted(outcomes)]
        file.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n")
        write_report(out / "fleet.md", ordered)
        for complaint in outcome.complaints:
            findings.check(False, complaint)
        findings.check(not outcome.complaints, f"seed {outcome.seed}: {outcome.acknowledged} acknowledged changes, {outcome.lists} lists")
    findings.end()


def run_trials(seeds: Iterable[int], replicas: int, writes: int, keep: Path | None) -> Iterator[Outcome]:
    """Run seeds, one after the other, on one fleet for as long as it keeps what it promises."""
    with ExitStack() as stack:
        ground: Ground | None = None
        for seed in seeds:
            ground = ground or stack.enter_context(started(replicas, keep))
            outcome = run_trial(seed, ground, writes)
            yield outcome
            if outcome.complaints:
                stack.close()
                ground = None


if __name__ == "__main__":
    typer.run(main)
