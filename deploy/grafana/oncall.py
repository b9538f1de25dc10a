"""The page for whoever is on call: is it up, is it right, is it fast, is it full."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, page, per_second, percentiles, quantile

RECOMMENDATIONS = 'route="/v1/recommendations"'
_LATENCY = "atspeed_request_latency_seconds"
_FAST = per_second(f"{_LATENCY}_bucket", where=f'{RECOMMENDATIONS}, status="200", le="0.5"')
_ANSWERED = per_second(f"{_LATENCY}_count", where=f'{RECOMMENDATIONS}, status="200"')
_RESPONSES = "atspeed_http_responses_total"
_ALL = per_second(_RESPONSES, where='route=~"/v1/.*"')
_FAILED = per_second(_RESPONSES, where='status=~"5..", route=~"/v1/.*"')

UP = [
    Panel(
        "Engines up",
        "Replicas whose engine serves, of all that are scraped. A replica without one answers 503 and starts another.",
        "none",
        [Query(f"sum(atspeed_engine_up{{{CHOSEN}}})", "up"), Query(f"count(atspeed_engine_up{{{CHOSEN}}})", "scraped")],
        width=6,
        number=True,
    ),
    Panel(
        "Lists in time",
        "Share of recommendations answered within 500 ms, of all that were answered: what the latency objective (99 %) is about.",
        "percentunit",
        [Query(f"{_FAST} / {_ANSWERED}")],
        width=6,
        number=True,
    ),
    Panel(
        "Errors",
        "Share of answers with a status of 500 and above.",
        "percentunit",
        [Query(f"({_FAILED} or vector(0)) / {_ALL}")],
        width=6,
        number=True,
    ),
    Panel(
        "Engine restarts",
        "Engine processes started in the last hour to replace a dead one. More than one is a pattern: read the log.",
        "none",
        [Query(f"sum(increase(atspeed_engine_restarts_total{{{CHOSEN}}}[1h]))")],
        width=6,
        number=True,
    ),
]
TRAFFIC = [
    Panel("Traffic", "Answers a second by route.", "reqps", [Query(per_second(_RESPONSES, "route"), "{{route}}")], stacked=True),
    Panel(
        "Statuses",
        "Answers a second by status: 429 is overload refused in time, 503 no engine or no histories, 504 a deadline that passed.",
        "reqps",
        [Query(per_second(_RESPONSES, "status", 'route=~"/v1/.*"'), "{{status}}")],
        stacked=True,
    ),
    Panel(
        "Refused",
        "Requests refused at once so that others keep their deadline. It is the first sign that replicas are too few.",
        "reqps",
        [Query(per_second("atspeed_refused_requests_total", "reason"), "{{reason}}")],
    ),
]
LATENCY = [
    Panel(
        "Latency",
        "Of recommendations that were answered, seen from inside.",
        "s",
        percentiles(_LATENCY, f'{RECOMMENDATIONS}, status="200"'),
    ),
    Panel(
        "Where it goes (p99)",
        "Waiting for the engine, in the engine, in the history store. A long queue is load, a long engine a large or slow model.",
        "s",
        [
            Query(quantile(0.99, "atspeed_queue_seconds"), "queue"),
            Query(quantile(0.99, "atspeed_engine_seconds"), "engine"),
            Query(quantile(0.99, "atspeed_history_latency_seconds"), "histories"),
        ],
    ),
    Panel("Steps of the engine", "Each is one forward of the target, drafting included.", "s", percentiles("atspeed_step_seconds")),
]
SATURATION = [
    Panel(
        "Expected wait",
        "How long each engine is busy with what it has: what admission and scaling go by.",
        "s",
        [Query(f"max by (instance) (atspeed_expected_wait_seconds{{{CHOSEN}}})", "{{instance}}")],
    ),
    Panel(
        "Queue",
        "Requests that wait for an engine, and those that run.",
        "none",
        [
            Query(f"sum(atspeed_waiting_requests{{{CHOSEN}}})", "waiting"),
            Query(f"sum(atspeed_running_requests{{{CHOSEN}}})", "running"),
        ],
    ),
    Panel(
        "Key/value slots",
        "Share of slots that running requests own, and that hold earlier prompts. Cached ones are given up when they are needed.",
        "percentunit",
        [
            Query(f"sum(atspeed_kv_slots_used{{{CHOSEN}}}) / sum(atspeed_kv_slots{{{CHOSEN}}})", "running"),
            Query(f"sum(atspeed_kv_slots_cached{{{CHOSEN}}}) / sum(atspeed_kv_slots{{{CHOSEN}}})", "cached"),
        ],
    ),
    Panel(
        "Prompt tokens from the cache",
        "Share of prompt tokens that needed no computing. It falls when users are sent to other replicas than before.",
        "percentunit",
        [Query(f"{per_second('atspeed_cached_tokens_total')} / {per_second('atspeed_prompt_tokens_total')}")],
    ),
    Panel(
        "API process",
        "How late its event loop is (p99). Above 50 ms the API process, not the engine, is what clients wait for.",
        "s",
        [Query(quantile(0.99, "atspeed_event_loop_lag_seconds"), "lag")],
    ),
    Panel(
        "History store",
        "Operations a second, and those that failed.",
        "ops",
        [
            Query(per_second("atspeed_history_latency_seconds_count", "operation"), "{{operation}}"),
            Query(per_second("atspeed_history_errors_total"), "failed"),
        ],
    ),
]


def oncall() -> Dashboard:
    """The page."""
    rows = [("Is it up?", UP), ("Traffic", TRAFFIC), ("Latency", LATENCY), ("Saturation", SATURATION)]
    return page("atspeed-oncall", "atspeed: on call", "Traffic, errors, latency and saturation of all replicas.", rows)
