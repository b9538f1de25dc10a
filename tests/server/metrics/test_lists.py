"""What Prometheus is told of the recommendations: full or short, varied or narrow, known or cold."""

import pytest

from server.metrics.item_counts import WINDOW_LISTS
from server.metrics.registry import Metrics
from tests.server.metrics.test_registry import value


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.health.open_catalog("v1", 200)
    return metrics


def test_lists_are_counted_with_their_items(metrics: Metrics):
    metrics.health.observe_list("v1", [1, 2, 3], [3, 4], short=False)
    metrics.health.observe_list("v1", [3, 4], [], short=True)
    assert (value(metrics, "items_served_total"), value(metrics, "short_lists_total")) == (5, 1)
    # 1 and 2 are in nobody's history.
    assert value(metrics, "cold_items_served_total") == 2
    assert value(metrics, "distinct_items_served") == 4


def test_a_list_for_somebody_who_has_met_nothing_makes_no_item_known(metrics: Metrics):
    metrics.health.observe_list("v1", [1, 2, 3], (), short=False)
    metrics.health.observe_list("v1", (), (), short=True)
    assert value(metrics, "cold_items_served_total") == 3
    assert value(metrics, "distinct_items_served") == 3


def test_the_skew_is_the_share_of_the_most_listed_hundredth(metrics: Metrics):
    assert value(metrics, "top_items_share") == 0
    for item in range(10):
        metrics.health.observe_list("v1", [7, 8, item + 20], [], short=False)
    # Two of 200 items are the hundredth: 7 and 8 have 20 of 30 places.
    assert value(metrics, "top_items_share") == pytest.approx(20 / 30)


def test_another_catalog_begins_anew(metrics: Metrics):
    metrics.health.observe_list("v1", [1, 199], [], short=False)
    metrics.health.open_catalog("v2", 20)
    metrics.health.observe_list("v1", [150], [], short=False)
    metrics.health.observe_list("v2", [1], [2], short=False)
    assert (value(metrics, "distinct_items_served"), value(metrics, "catalog_items")) == (1, 20)
    assert (value(metrics, "catalog_info", version="v1"), value(metrics, "catalog_info", version="v2")) == (None, 1)


def test_new_items_leave_the_counts_as_they_are(metrics: Metrics):
    metrics.health.observe_list("v1", [1, 199], [199], short=False)
    metrics.health.extend_catalog("v1.items-1", 203)
    metrics.health.observe_list("v1.items-1", [1, 202], [], short=False)
    assert (value(metrics, "distinct_items_served"), value(metrics, "catalog_items")) == (3, 203)
    assert value(metrics, "cold_items_served_total") == 3
    assert (value(metrics, "catalog_info", version="v1"), value(metrics, "catalog_info", version="v1.items-1")) == (None, 1)


def test_lists_with_places_for_fresh_items_are_counted(metrics: Metrics):
    metrics.health.observe_fresh(3, short=False)
    metrics.health.observe_fresh(1, short=True)
    counted = [value(metrics, "fresh_lists_total", outcome=outcome) for outcome in ("full", "short")]
    assert (counted, value(metrics, "fresh_items_served_total")) == ([1, 1], 4)


def test_a_server_without_a_catalog_says_nothing_of_items():
    assert (value(Metrics(), "distinct_items_served"), value(Metrics(), "top_items_share")) == (0, 0)


def test_what_was_served_long_ago_is_forgotten(metrics: Metrics):
    metrics.health.observe_list("v1", [5], [6], short=False)
    for _ in range(WINDOW_LISTS):
        metrics.health.observe_list("v1", [1], [], short=False)
    assert value(metrics, "distinct_items_served") == 1
    assert value(metrics, "cold_items_served_total") == 1 + WINDOW_LISTS


def test_filters_are_counted_by_what_was_used(metrics: Metrics):
    metrics.health.observe_filters(exclude=True, exclude_history=False, named=False)
    metrics.health.observe_filters(exclude=True, exclude_history=True, named=True)
    metrics.health.observe_filters(exclude=False, exclude_history=False, named=False)
    counted = [value(metrics, "filtered_requests_total", filter=name) for name in ("exclude", "exclude_history", "named")]
    assert counted == [2, 1, 1]
