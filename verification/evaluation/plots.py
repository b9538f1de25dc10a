"""Plots of a report: accepted steps by objective, and quality against speed."""

from pathlib import Path

from matplotlib.figure import Figure

from verification.evaluation.report import PLAIN, Report
from verification.evaluation.seeds import over_seeds

WIDTH, HEIGHT = 6.4, 4.0


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Write `accepted_steps.png`, and `recall_speed.png` if lists were timed; return the files."""
    files = [accepted_steps_plot(report, folder / "accepted_steps.png")] if any(row.draft for row in report.rows) else []
    if any(row.timing for row in report.rows):
        files.append(_recall_speed(report, folder / "recall_speed.png"))
    return files


def accepted_steps_plot(report: Report, path: Path) -> Path:
    """Plot AS@K over K, one line per objective and mode, or bars for a single K; with the standard deviation over seeds."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    joined = sorted(over_seeds(report), key=lambda row: row.k)
    if len({row.k for row in joined}) == 1:
        labels = [f"{row.objective}, {row.mode}" for row in joined]
        axes.barh(labels, [row.accepted_steps for row in joined], xerr=[row.deviation for row in joined], capsize=2)
        axes.invert_yaxis()
        axes.set(xlabel=f"accepted steps per request, K = {joined[0].k}", title=f"{report.users:,} users")
        figure.savefig(path, dpi=150)
        return path
    for objective, mode in dict.fromkeys((row.objective, row.mode) for row in joined):
        rows = [row for row in joined if (row.objective, row.mode) == (objective, mode)]
        steps, deviations = [row.accepted_steps for row in rows], [row.deviation for row in rows]
        axes.errorbar([row.k for row in rows], steps, yerr=deviations, marker="o", capsize=2, label=f"{objective}, {mode}")
    axes.set(xlabel="K", ylabel="accepted steps per request", title=f"{report.users:,} users")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    return path


def _recall_speed(report: Report, path: Path) -> Path:
    """Plot Recall@K over lists per second, one line per draft and mode, one point per K."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for draft, mode in dict.fromkeys((row.draft, row.mode) for row in report.rows):
        rows = sorted((row for row in report.rows if (row.draft, row.mode) == (draft, mode)), key=lambda row: row.k)
        points = [(1e3 / row.timing.ms.mean, row.quality.recall, row.k) for row in rows if row.timing]
        label = "plain beam search" if mode == PLAIN else ", ".join(filter(None, (draft, mode)))
        axes.plot([speed for speed, _, _ in points], [found for _, found, _ in points], marker="o", label=label)
        for speed, found, k in points:
            axes.annotate(f"K={k}", (speed, found), fontsize="x-small", xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="lists per second, one request at a time", ylabel="Recall@K", title=f"{report.users:,} users")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    return path
