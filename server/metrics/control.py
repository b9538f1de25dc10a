"""Prometheus metrics of the control store, as one replica sees it."""

from prometheus_client import CollectorRegistry, Gauge


class ControlMetrics:
    """How a replica follows the others."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("atspeed_control_up", "1 while the control store answers, else 0.", registry=registry)
        self.lost = Gauge(
            "atspeed_control_lost", "1 while the control store has lost its state, which this replica still has, else 0.", registry=registry
        )
        self.begin_failed = Gauge(
            "atspeed_begin_failed",
            "1 while this server has tried to begin with a version of the catalog and could not, else 0.",
            registry=registry,
        )
        self.revision = Gauge("atspeed_control_revision", "Revision that this replica has applied.", registry=registry)
        self.behind = Gauge(
            "atspeed_control_behind_seconds",
            "Time since when this replica may not have applied what others have written.",
            registry=registry,
        )
