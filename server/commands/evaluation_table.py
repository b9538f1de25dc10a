"""The table that `atspeed evaluate` prints."""

from typing import TYPE_CHECKING

import typer

from server.commands.terminal import print_table

if TYPE_CHECKING:
    from verification.evaluation.report import ModeRow, Quality, Report


def print_report(report: "Report") -> None:
    """Print what was found, a row for each length, mode and baseline."""
    setting, users = report.setting, f"{report.users:,} users, {report.warm_users:,} with a warm label"
    name = setting["target"]["name"] if "target" in setting else "baselines"
    title = f"{name}: {users}; plan {setting['settings']['plan']}, {setting['threads']} threads"
    heads = ["K", "beam", "draft", "mode", "Recall", "±", "NDCG", "±", "warm", "AS", "forwards", "= plain"]
    heads += ["ms", "p99", "speed-up", "/ generate"] if setting["timed_users"] else []
    rows = [*map(_cells, report.rows), *(_quality_cells(row.k, "", row.chosen, row.name, row.quality) for row in report.baselines)]
    if (whole := report.exhaustive) is not None:
        rows += [_quality_cells(length, "all", "", "whole catalog", quality) for length, quality in whole.quality.items()]
    print_table(title, heads, sorted(rows, key=lambda cells: int(cells[0])), left=("draft", "mode"))
    if whole is not None:
        typer.echo(
            f"The whole catalog: the best held-out item has rank {whole.rank.mean:.1f} on average (median {whole.rank.p50:.0f}, p99 "
            f"{whole.rank.p99:.0f}); NDCG {whole.ndcg:.4f}, AUC {whole.auc:.4f}."
        )
    for baseline, reason in report.left_out.items():
        typer.echo(f"{baseline} is left out: {reason}")
    for length, ms in report.generate_ms.items():
        asked = min(setting["settings"]["generated"], setting["timed_users"])
        equal = report.generate_equal[length]
        typer.echo(f"transformers' generate, K = {length}: {ms.mean:.1f} ms, plain beam search's list for {equal} of {asked} users")


def _cells(row: "ModeRow") -> list[str]:
    cells = [
        *_quality_cells(row.k, row.beam, row.draft, row.mode, row.quality),
        f"{row.accepted_steps.mean:.2f}",
        f"{row.target_forwards.mean:.2f}",
    ]
    cells.append(str(row.lists_equal))
    if row.timing is None:
        return cells
    beside = row.timing.generate_speedup
    timing = [f"{row.timing.ms.mean:.1f}", f"{row.timing.ms.p99:.1f}", f"{row.timing.speedup:.2f}x"]
    return [*cells, *timing, "" if beside is None else f"{beside:.2f}x"]


def _quality_cells(k: int, beam: str, draft: str, mode: str, quality: "Quality") -> list[str]:
    figures = (quality.recall, quality.recall_error, quality.ndcg, quality.ndcg_error, quality.warm_recall)
    return [str(k), beam, draft, mode, *(f"{value:.4f}" for value in figures)]
