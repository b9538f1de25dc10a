"""Pictures of the workshop's reports.

Invariant: matplotlib is imported only when a picture is asked for, and draws into files only.
"""

from typing import Any


def panels(count: int, width: float = 5.5, **options: Any) -> tuple[Any, Any]:
    """A figure of so many panels side by side, and these; `options` are those of matplotlib's `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, 4.5), dpi=150, layout="constrained")
    return figure, figure.subplots(1, count, **options)
