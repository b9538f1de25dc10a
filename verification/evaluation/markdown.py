"""The report of an evaluation as Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from verification.evaluation.report import Quality, Report
from verification.evaluation.seeds import over_seeds
from verification.evaluation.users import CHOOSING_USERS

MODE_HEADS = (
    *("K", "beam", "draft", "mode", "Recall", "warm Recall", "NDCG", "AS", "forwards", "drafted nodes", "equal to plain"),
    *("mean ms", "p50", "p99", "speed-up", "over generate"),
)
SEED_HEADS = ("K", "objective", "mode", "drafts", "AS, mean", "AS, std", "Recall", "NDCG", "speed-up")
EXHAUSTIVE_HEADS = ("K", "Recall", "warm Recall", "NDCG")
BASELINE_HEADS = ("K", "baseline", "chosen", "Recall", "warm Recall", "NDCG")


def to_markdown(report: Report) -> str:
    """The report: the setting in a sentence, then tables of all rows."""
    setting = report.setting
    options = setting["settings"]
    parts = [
        f"{_target(setting)}Catalog {setting['catalog']['version']} of {setting['catalog']['items']:,} items; {report.users:,} users of "
        f"the part {options['part']}, {report.warm_users:,} of them with a warm label; seen items "
        f"{'kept' if options.get('keep_seen', True) else 'left out'}; plan {options['plan']}; {setting['timed_users']} users timed one "
        f"request at a time on {setting['threads']} threads of {setting['machine']}, {setting['date']}."
    ]
    if report.rows:
        parts.append(_table(MODE_HEADS, _mode_cells(report)))
    if (whole := report.exhaustive) is not None:
        rows = ((str(k), *_quality_cells(quality)) for k, quality in whole.quality.items())
        parts += [
            f"The whole catalog, ranked by the target's scores of all items: the best held-out item has rank {whole.rank.mean:.1f} on "
            f"average (median {whole.rank.p50:.0f}, p99 {whole.rank.p99:.0f}); NDCG {whole.ndcg:.4f}, AUC {whole.auc:.4f}.",
            _table(EXHAUSTIVE_HEADS, rows),
        ]
    if report.setting["drafts"]:
        parts += ["By objective, over the seeds:", _table(SEED_HEADS, _seed_cells(report))]
    if report.baselines:
        rows = ((str(row.k), row.name, row.chosen, *_quality_cells(row.quality)) for row in report.baselines)
        parts += [
            f"Without a language model, settings chosen by at most {CHOOSING_USERS:,} users of the validation part, or by default where "
            "they say so:",
            _table(BASELINE_HEADS, rows),
        ]
    parts += [f"{name} is left out: {reason}" for name, reason in report.left_out.items()]
    if report.generate_ms:
        generated = min(options["generated"], setting["timed_users"])
        rows = ((str(k), f"{ms.mean:.1f}", f"{report.generate_equal[k]} of {generated}") for k, ms in report.generate_ms.items())
        parts += ["transformers' `generate`:", _table(("K", "mean ms", "plain beam search's list"), rows)]
    return "\n\n".join(parts) + "\n"


def _target(setting: dict[str, Any]) -> str:
    """The target in words; nothing for a report of baselines alone."""
    return f"Target {setting['target']['name']} ({setting['target']['hash']}). " if "target" in setting else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _mode_cells(report: Report) -> list[list[str]]:
    lines = []
    for row in sorted(report.rows, key=lambda row: row.k):
        cells = [str(row.k), row.beam, row.draft, row.mode, *_quality_cells(row.quality), f"{row.accepted_steps.mean:.3f}"]
        cells += [f"{row.target_forwards.mean:.3f}", f"{row.drafted_nodes:.0f}", f"{row.lists_equal:,} of {report.users:,}"]
        if row.timing:
            cells += [f"{value:.1f}" for value in (row.timing.ms.mean, row.timing.ms.p50, row.timing.ms.p99)]
            beside = row.timing.generate_speedup
            cells += [f"{row.timing.speedup:.2f}x", "" if beside is None else f"{beside:.2f}x"]
        lines.append(cells + [""] * (len(MODE_HEADS) - len(cells)))
    return lines


def _seed_cells(report: Report) -> list[list[str]]:
    return [
        [
            *(str(row.k), row.objective, row.mode, str(row.drafts), f"{row.accepted_steps:.3f}", f"{row.deviation:.3f}"),
            *(f"{row.recall:.4f}", f"{row.ndcg:.4f}", "" if row.speedup is None else f"{row.speedup:.2f}x"),
        ]
        for row in sorted(over_seeds(report), key=lambda row: row.k)
    ]


def _quality_cells(quality: Quality) -> list[str]:
    return [
        f"{quality.recall:.4f} ± {quality.recall_error:.4f}",
        f"{quality.warm_recall:.4f}",
        f"{quality.ndcg:.4f} ± {quality.ndcg_error:.4f}",
    ]
