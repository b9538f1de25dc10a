"""The dashboard of the recommendations: served catalog, short lists, diversity of items."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, page, per_second

_POPULAR = per_second("atspeed_popular_lists_total")
# Popular lists have no plan, and before a process has made another list it has no series of plans.
_LISTS = f"(({per_second('atspeed_plan_decisions_total')} or 0 * {_POPULAR}) + {_POPULAR})"

CATALOG = [
    Panel(
        "Catalog",
        "Number of replicas that serve each version. Two versions for a long time mean that some replicas were not updated.",
        "none",
        [Query(f"count by (version) (atspeed_catalog_info{{{CHOSEN}}})", "{{version}}")],
        number=True,
    ),
    Panel("Items", "Number of items of the served catalog.", "none", [Query(f"max(atspeed_catalog_items{{{CHOSEN}}})")], number=True),
    Panel(
        "Activations",
        "Attempts to activate a version of the catalog in the last day, by outcome.",
        "none",
        [Query(f"sum by (outcome) (increase(atspeed_catalog_activations_total{{{CHOSEN}}}[1d]))", "{{outcome}}")],
        number=True,
    ),
]
LISTS = [
    Panel(
        "Short lists",
        "Share of lists with fewer identifiers than requested: too few items were eligible, or an upper one of their beam_widths was "
        "narrow.",
        "percentunit",
        [Query(f"{per_second('atspeed_short_lists_total')} / {_LISTS}")],
    ),
    Panel(
        "Filters",
        "Share of requests that filter items, by kind of filter.",
        "percentunit",
        [Query(f"{per_second('atspeed_filtered_requests_total', 'filter')} / ignoring(filter) group_left() {_LISTS}", "{{filter}}")],
    ),
    Panel(
        "Reserved fresh items",
        "Lists per second with reserved fresh items: full if enough fresh items were eligible, otherwise short.",
        "ops",
        [Query(per_second("atspeed_fresh_lists_total", "outcome"), "{{outcome}}")],
    ),
    Panel("Items served", "Items per second in all lists.", "ops", [Query(per_second("atspeed_items_served_total"))]),
]
FAVOUR = [
    Panel(
        "Distinct items",
        "Share of the catalog in the newest 20,000 lists of each replica.",
        "percentunit",
        [Query(f"atspeed_distinct_items_served{{{CHOSEN}}} / atspeed_catalog_items{{{CHOSEN}}}", "{{instance}}")],
    ),
    Panel(
        "Popularity skew",
        "Share of the items in those lists that belong to the most listed 1% of the catalog. It rises when lists become less diverse.",
        "percentunit",
        [Query(f"atspeed_top_items_share{{{CHOSEN}}}", "{{instance}}")],
    ),
    Panel(
        "Cold items",
        "Share of listed items that occur in none of the recently read histories. It is high on a replica that has just started.",
        "percentunit",
        [Query(f"{per_second('atspeed_cold_items_served_total')} / {per_second('atspeed_items_served_total')}")],
    ),
]


def health() -> Dashboard:
    """Build the dashboard."""
    rows = [("Catalog", CATALOG), ("Lists", LISTS), ("Diversity", FAVOUR)]
    return page("atspeed-health", "atspeed: recommendations", "Catalog, short lists and diversity of items.", rows)
