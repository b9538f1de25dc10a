"""The picture of a replay: how much faster each plan is than plain beam search, machine by machine."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.replay.report import ReplayRow


def plot_speedups(rows: Sequence[ReplayRow], path: Path) -> None:
    """Writes one panel per cost curve, one line per plan, list lengths along the axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    balances = sorted({row.balance for row in rows})
    figure, panels = pyplot.subplots(1, len(balances), figsize=(4.2 * len(balances), 4), sharey=True, squeeze=False)
    for panel, balance in zip(panels[0], balances, strict=True):
        for plan in dict.fromkeys(row.plan for row in rows):
            points = [(row.k, row.speedup) for row in rows if row.plan == plan and row.balance == balance]
            planner = plan == "auto"
            panel.plot(
                *zip(*points, strict=True), marker="o", label=plan, linewidth=2.5 if planner else 1.2, color="black" if planner else None
            )
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set(title=f"a/b = {balance:g} tokens", xlabel="list length k")
    panels[0][0].set_ylabel("times as fast as plain beam search (modelled)")
    panels[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
