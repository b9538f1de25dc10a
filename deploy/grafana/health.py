"""The page about the recommendations themselves: which catalog, how full lists are, whom they favour."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, page, per_second

_LISTS = per_second("atspeed_plan_decisions_total")

CATALOG = [
    Panel(
        "Catalog",
        "Replicas that serve each version. Two versions for long are replicas that were left behind.",
        "none",
        [Query(f"count by (version) (atspeed_catalog_info{{{CHOSEN}}})", "{{version}}")],
        number=True,
    ),
    Panel("Items", "Of the catalog that is served.", "none", [Query(f"max(atspeed_catalog_items{{{CHOSEN}}})")], number=True),
    Panel(
        "Activations",
        "Catalogs that were to be served in the last day, by what came of it.",
        "none",
        [Query(f"sum by (outcome) (increase(atspeed_catalog_activations_total{{{CHOSEN}}}[1d]))", "{{outcome}}")],
        number=True,
    ),
]
LISTS = [
    Panel(
        "Short lists",
        "Share of lists with fewer identifiers than were asked for, because too few were eligible.",
        "percentunit",
        [Query(f"{per_second('atspeed_short_lists_total')} / {_LISTS}")],
    ),
    Panel(
        "Filters",
        "Share of requests that left items out, by how.",
        "percentunit",
        [Query(f"{per_second('atspeed_filtered_requests_total', 'filter')} / ignoring(filter) group_left {_LISTS}", "{{filter}}")],
    ),
    Panel(
        "Places for fresh items",
        "Lists a second with places for fresh items, by whether there were enough of them: short ones got all that were eligible.",
        "ops",
        [Query(per_second("atspeed_fresh_lists_total", "outcome"), "{{outcome}}")],
    ),
    Panel("Items served", "A second, over all lists.", "ops", [Query(per_second("atspeed_items_served_total"))]),
]
FAVOUR = [
    Panel(
        "Distinct items",
        "Share of the catalog that each replica's lists of late (10,000 to 20,000) had.",
        "percentunit",
        [Query(f"atspeed_distinct_items_served{{{CHOSEN}}} / atspeed_catalog_items{{{CHOSEN}}}", "{{instance}}")],
    ),
    Panel(
        "Popularity skew",
        "Share of the places in those lists that the most listed hundredth of the catalog has. It rises when lists narrow down.",
        "percentunit",
        [Query(f"atspeed_top_items_share{{{CHOSEN}}}", "{{instance}}")],
    ),
    Panel(
        "Cold items",
        "Share of the places that items have which none of the histories read of late has. It starts high on a replica that has read few.",
        "percentunit",
        [Query(f"{per_second('atspeed_cold_items_served_total')} / {per_second('atspeed_items_served_total')}")],
    ),
]


def health() -> Dashboard:
    """The page."""
    rows = [("Catalog", CATALOG), ("Lists", LISTS), ("Whom lists favour", FAVOUR)]
    return page("atspeed-health", "atspeed: recommendations", "Catalog, fullness and variety of the lists.", rows)
