"""The picture of a replay: how much faster each plan is than plain beam search, machine by machine."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import panels
from benchmarks.replay.report import ReplayRow


def plot_speedups(rows: Sequence[ReplayRow], path: Path) -> None:
    """Write one panel per cost curve, one line per plan, list lengths along the axis."""
    balances = sorted({row.balance for row in rows})
    # The legend takes a part of the width.
    figure, axes = panels(len(balances), 4.2 + 2 / len(balances), sharey=True, squeeze=False)
    for panel, balance in zip(axes[0], balances, strict=True):
        for plan in dict.fromkeys(row.plan for row in rows):
            points = [(row.k, row.speedup) for row in rows if row.plan == plan and row.balance == balance]
            planner = plan == "auto"
            panel.plot(
                *zip(*points, strict=True), marker="o", label=plan, linewidth=2.5 if planner else 1.2, color="black" if planner else None
            )
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set(title=f"a/b = {balance:g} tokens", xlabel="list length k", xticks=sorted({row.k for row in rows}))
    axes[0][0].set_ylabel("times as fast as plain beam search (modelled)")
    # Beside the panels: inside one it would hide plans.
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(path)
