"""Prometheus metrics of the recommendations: served catalog, short lists, and the diversity of items.

Invariant: what is said of items is said of the newest lists (`item_counts`), and never by item, so labels stay few. Reason: lists that
narrow down to a few favourites go unnoticed in latency and errors, and a share since the start of the process would take days to show it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from server.errors import EmptyHistory, ServerError, StaleHistory, UserNotFound
from server.metrics.counter import LoopCounter
from server.metrics.item_counts import ItemCounts
from verification.result import Source

FILTERS = ("exclude", "exclude_history", "named")


class HealthMetrics:
    """Metrics of the served catalog and of the items in lists."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(LoopCounter, registry=registry), partial(Gauge, registry=registry)
        self.catalog_info = gauge("atspeed_catalog_info", "1 for the served version of the catalog.", ["version"])
        self.catalog_items = gauge("atspeed_catalog_items", "Number of items of the served catalog.")
        self.activations = counter(
            "atspeed_catalog_activations_total", "Attempts to activate a version of the catalog, by outcome.", ["outcome"]
        )
        self.catalogs_left = gauge(
            "atspeed_catalogs_left",
            "Versions of the catalog that the server has left by itself for an earlier one, neither activated nor removed since.",
        )
        self.items_added = counter("atspeed_items_added_total", "Items added to the served catalog.")
        self.lists = counter(
            "atspeed_lists_total", "Lists asked for, alone or in a batch, by the status of the answer; invalid bodies aside.", ["status"]
        )
        self.short_lists = counter("atspeed_short_lists_total", "Lists with fewer identifiers than requested.")
        self.filters = counter("atspeed_filtered_requests_total", "Requests that filter items, by kind of filter.", ["filter"])
        self.items_served = counter("atspeed_items_served_total", "Items in lists.")
        self.cold_items_served = counter(
            "atspeed_cold_items_served_total", "Items in lists that occur in none of the recently read histories."
        )
        self.fresh_lists = counter(
            "atspeed_fresh_lists_total",
            "Lists with reserved fresh items, by whether all reserved positions were filled (full) or not (short).",
            ["outcome"],
        )
        self.fresh_items_served = counter("atspeed_fresh_items_served_total", "Fresh items in lists with reserved fresh items.")
        self.blended_lists = counter("atspeed_blended_lists_total", "Lists blended with the neighbour model.")
        self.blended_items = counter(
            "atspeed_blended_identifiers_total", "Identifiers of blended lists, by the models that propose them.", ["source"]
        )
        self.popular_lists = counter(
            "atspeed_popular_lists_total", "Lists of popular items for users of whom nothing is known, by the reason.", ["reason"]
        )
        self.known_neighbours = gauge(
            "atspeed_neighbours_known_items", "Items of the served catalog that the neighbour model knows; 0 without one."
        )
        self.explained_lists = counter("atspeed_explained_lists_total", "Lists that were explained.")
        self.score_requests = counter("atspeed_score_requests_total", "Requests for scores of items that were answered.")
        self.scored_items = counter("atspeed_scored_items_total", "Items scored in answers to them.")
        self.distinct_items = gauge("atspeed_distinct_items_served", "Number of distinct items in recent lists.")
        self.top_share = gauge(
            "atspeed_top_items_share", "Share of the items in recent lists that belong to the most listed 1% of the catalog."
        )
        for metric, values in (
            (self.lists, ("200", "500", "503", "504")),
            (self.activations, ("activated", "failed")),
            (self.filters, FILTERS),
            (self.fresh_lists, ("full", "short")),
            (self.blended_items, tuple(Source)),
            (self.popular_lists, tuple(kind.reason for kind in (UserNotFound, EmptyHistory, StaleHistory))),
        ):
            for value in values:
                metric.begin(value)
        self._version, self._counts = "", ItemCounts(0)

    def open_catalog(self, version: str, items: int) -> None:
        """Start counting for a version of the catalog with `items` items."""
        self._name(version, items)
        self._counts = ItemCounts(items)
        # Read when Prometheus asks, which is seldom beside the lists.
        self.distinct_items.set_function(lambda: self._counts.distinct)
        self.top_share.set_function(lambda: self._counts.top_share)

    def extend_catalog(self, version: str, items: int) -> None:
        """Continue counting for a version made by adding items, with `items` items in total."""
        self._name(version, items)
        self._counts.extend(items)

    def count_left(self, count: Callable[[], int]) -> None:
        """Have `count` tell how many versions the server has left."""
        self.catalogs_left.set_function(count)

    def count_known(self, count: Callable[[], int]) -> None:
        """Have `count` tell how many items of the served catalog the neighbour model knows."""
        self.known_neighbours.set_function(count)

    def _name(self, version: str, items: int) -> None:
        self._version = version
        self.catalog_info.clear()
        self.catalog_info.labels(version).set(1)
        self.catalog_items.set(items)

    def observe_filters(self, *, exclude: bool, exclude_history: bool, named: bool) -> None:
        """Count the kinds of filters of a request."""
        for name, used in zip(FILTERS, (exclude, exclude_history, named), strict=True):
            if used:
                self.filters.inc(1, name)

    def observe_fresh(self, items: int, *, short: bool) -> None:
        """Count a list with reserved fresh items: its fresh items, and whether it has fewer than requested (`short`)."""
        self.fresh_lists.inc(1, "short" if short else "full")
        self.fresh_items_served.inc(items)

    def observe_scores(self, items: int) -> None:
        """Count an answer with scores of so many items."""
        self.score_requests.inc()
        self.scored_items.inc(items)

    def observe_blend(self, sources: Sequence[Source]) -> None:
        """Count a blended list, with the source of each of its identifiers."""
        self.blended_lists.inc()
        for source in sources:
            self.blended_items.inc(1, source)

    @contextmanager
    def activation(self, *mistakes: type[ServerError]) -> Iterator[None]:
        """Count an activation of a catalog; it has failed if it ends with an exception, but one by which it was asked for by mistake."""
        outcome = "failed"
        try:
            yield
            outcome = "activated"
        except mistakes:
            outcome = ""
            raise
        finally:
            if outcome:
                self.activations.inc(1, outcome)

    def activated(self) -> None:
        """Count an activation of a catalog with which nothing can go wrong any more."""
        self.activations.inc(1, "activated")

    def observe_list(self, version: str, items: Sequence[int], history: Sequence[int], *, short: bool) -> None:
        """Count one list; its items only if it is of the version that is served, because another one numbers its items otherwise.

        Args:
            items: catalog indices of its items.
            history: catalog indices of what the user had met.
            short: True if it has fewer identifiers than requested.
        """
        self.short_lists.inc(short)
        self.items_served.inc(len(items))
        if version != self._version:
            return
        self.cold_items_served.inc(self._counts.observe(items, history))
