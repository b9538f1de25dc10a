"""The picture of a soak: answers over time with the faults among them, and the memory of both processes.

Invariant: nothing is drawn that is not in the report.
"""

from pathlib import Path

from benchmarks.figures import panels
from benchmarks.soak.report import BIN_SECONDS, SoakReport

_OUTCOMES = {
    "answered": "C2",
    "refused": "C1",
    "late": "C4",
    "unavailable": "C3",
    "hung_up": "C7",
    "api_down": "black",
    "other": "C5",
    "unanswered": "red",
}
_FAULTS = {"API killed": "black", "engine killed": "C3", "engine hung": "C4"}


def save_plot(found: SoakReport, path: Path) -> None:
    """Write the picture."""
    figure, (load, memory) = panels(2, 7)
    times = [BIN_SECONDS * number for number in range(len(found.timeline))]
    series = {name: [counts.get(name, 0) / BIN_SECONDS for counts in found.timeline] for name in _OUTCOMES}
    shown = [name for name, values in series.items() if any(values)]
    load.stackplot(times, [series[name] for name in shown], labels=shown, colors=[_OUTCOMES[name] for name in shown], step="post")
    for kind, colour in _FAULTS.items():
        label = kind
        for fault in found.faults:
            if fault.kind == kind:
                load.axvline(fault.at, color=colour, linestyle=":", linewidth=1.0, label=label)
                label = "_"
    load.set_ylabel("requests a second, by outcome")
    for name, values in (
        ("API process", [(point.seconds, point.api, point.api_mib) for point in found.idle_points]),
        ("engine", [(point.seconds, point.engine, point.engine_mib) for point in found.idle_points]),
    ):
        first = next(mib for _, process, mib in values if process == values[-1][1])
        memory.plot(
            [at for at, _, _ in values], [100 * mib / first for _, _, mib in values], marker="o", label=f"{name}, 100 = {first:.0f} MiB"
        )
    memory.set_ylabel("memory when idle, %")
    for axes in (load, memory):
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.3)
        # Below the axes: wherever it lay inside it would hide answers.
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5)
    figure.suptitle(f"soak, {found.date}, {found.machine}", fontsize="small")
    figure.savefig(path, bbox_inches="tight")
