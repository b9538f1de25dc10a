"""Building blocks of the dashboards: panels of time series, panels of one number, and the dashboard itself.

Invariant: every query is restricted to the chosen instances, and every panel has a sentence that explains it, because its readers have not
written the queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableHide, VariableRefresh, VariableSort

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Part of every selector; Grafana inserts the chosen instances.
CHOSEN = 'instance=~"$instance"'


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series, in which `{{label}}` is a label of the series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: `unit` is a unit of Grafana; `number` shows the newest value instead of a time series."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    number: bool = False
    stacked: bool = False


def per_second(metric: str, by: str = "", where: str = "") -> str:
    """The rate of a counter, summed over the instances, by the labels in `by`."""
    selector = ", ".join(part for part in (CHOSEN, where) if part)
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, where: str = "") -> str:
    """A quantile of a histogram over all instances."""
    return f"histogram_quantile({share:g}, {per_second(f'{histogram}_bucket', 'le', where)})"


def mean(histogram: str) -> str:
    """The mean of a histogram's observations."""
    return f"{per_second(f'{histogram}_sum')} / {per_second(f'{histogram}_count')}"


def percentiles(histogram: str, where: str = "") -> list[Query]:
    """Queries of median, p90 and p99."""
    return [Query(quantile(share, histogram, where), name) for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))]


def page(uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> dashboard.Dashboard:
    """A dashboard of rows of panels."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["atspeed"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus").hide(VariableHide.DONT_HIDE))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .query("label_values(atspeed_engine_up, instance)")
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for name, panels in rows:
        built = built.with_row(dashboard.Row(name))
        for panel in panels:
            built = built.with_panel(_number(panel) if panel.number else _series(panel))
    return built


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().datasource(SOURCE).expr(query.expr).legend_format(query.legend or panel.title).ref_id(chr(ord("A") + number))
        for number, query in enumerate(panel.queries)
    ]


def _series(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .height(8)
        .span(panel.width)
        .fill_opacity(10)
        .legend(common.VizLegendOptions().display_mode(models.LegendDisplayMode.LIST).placement(models.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        built = built.stacking(common.StackingConfig().mode(models.StackingMode.NORMAL))
    for target in _targets(panel):
        built = built.with_target(target)
    return built


def _number(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .height(5)
        .span(panel.width)
        .graph_mode(models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for target in _targets(panel):
        built = built.with_target(target)
    return built
