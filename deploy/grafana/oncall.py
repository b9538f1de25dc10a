"""The dashboard for on-call engineers: availability, errors, latency, saturation."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, page, per_second, percentiles, quantile

RECOMMENDATIONS = 'route="/v1/recommendations"'
_LATENCY = "atspeed_request_latency_seconds"
_FAST = per_second(f"{_LATENCY}_bucket", where=f'{RECOMMENDATIONS}, status="200", le="0.5"')
_ANSWERED = per_second(f"{_LATENCY}_count", where=f'{RECOMMENDATIONS}, status="200"')
_RESPONSES = "atspeed_http_responses_total"
_ALL = per_second(_RESPONSES, where='route=~"/v1/.*"')
_FAILED = per_second(_RESPONSES, where='status=~"5..", route=~"/v1/.*"')
_LISTS = per_second("atspeed_lists_total")
_FAILED_LISTS = per_second("atspeed_lists_total", where='status=~"5.."')

UP = [
    Panel(
        "Engines up",
        "Replicas with a serving engine, those of them that take requests, and all scraped replicas. Who has no engine starts a new one.",
        "none",
        [
            Query(f"sum(atspeed_engine_up{{{CHOSEN}}})", "up"),
            Query(f"sum(atspeed_ready{{{CHOSEN}}})", "ready"),
            Query(f"count(atspeed_engine_up{{{CHOSEN}}})", "scraped"),
        ],
        width=4,
        number=True,
    ),
    Panel(
        "Lists in time",
        "Share of answered recommendations that took at most 500 ms. The objective is 99 %.",
        "percentunit",
        [Query(f"{_FAST} / {_ANSWERED}")],
        width=4,
        number=True,
    ),
    Panel(
        "Errors",
        "Share of responses with status 5xx, and of lists, those in batches too, whose responses are 200.",
        "percentunit",
        [
            Query(f"({_FAILED} or vector(0)) / {_ALL}", "responses"),
            Query(f"{_FAILED_LISTS} / {_LISTS}", "lists"),
        ],
        width=4,
        number=True,
    ),
    Panel(
        "Engine restarts",
        "Engine processes started in the last hour to replace one that died or hung. More than one: read the log.",
        "none",
        [Query(f"sum(increase(atspeed_engine_restarts_total{{{CHOSEN}}}[1h]))")],
        width=4,
        number=True,
    ),
    Panel(
        "Engine hangs",
        "Engine processes killed in the last hour because they gave no sign of life. The log says during what.",
        "none",
        [Query(f"sum(increase(atspeed_engine_hangs_total{{{CHOSEN}}}[1h]))")],
        width=4,
        number=True,
    ),
    Panel(
        "Scores not finite",
        "Lists of the last hour that could not be made, as the target's scores were NaN or infinite. Any at all: its weights or device.",
        "none",
        [Query(f"sum(increase(atspeed_not_finite_lists_total{{{CHOSEN}}}[1h]))")],
        width=4,
        number=True,
    ),
]
TRAFFIC = [
    Panel("Traffic", "Responses per second by route.", "reqps", [Query(per_second(_RESPONSES, "route"), "{{route}}")], stacked=True),
    Panel(
        "Statuses",
        "Responses per second by status. 429: overload, or a key beyond its rate; 503: no engine or history store; 504: deadline exceeded.",
        "reqps",
        [Query(per_second(_RESPONSES, "status", 'route=~"/v1/.*"'), "{{status}}")],
        stacked=True,
    ),
    Panel(
        "Refused",
        "Requests refused on arrival. Those for deadline and queue-full are load, the first sign that more replicas are needed; of "
        "explanations only two are made at a time, however idle a server is.",
        "reqps",
        [Query(per_second("atspeed_refused_requests_total", "reason"), "{{reason}}")],
    ),
    Panel(
        "Keys",
        "Requests per second by the holder of their key, and those refused because of it or for the lack of one.",
        "reqps",
        [
            Query(per_second("atspeed_key_requests_total", "key"), "{{key}}"),
            Query(per_second("atspeed_key_refusals_total", "key, reason"), "{{key}} refused: {{reason}}"),
            Query(per_second("atspeed_keyless_refusals_total", "reason"), "no key: {{reason}}"),
        ],
    ),
    Panel(
        "Rates by themselves",
        "Replicas that hold the rates of keys by themselves, because their Redis does not answer: each lets through the whole rate.",
        "none",
        [Query(f"sum(atspeed_key_rates_local{{{CHOSEN}}})")],
    ),
]
LATENCY = [
    Panel(
        "Latency",
        "Latency of answered recommendations, measured by the server.",
        "s",
        percentiles(_LATENCY, f'{RECOMMENDATIONS}, status="200"'),
    ),
    Panel(
        "Where it goes (p99)",
        "Time in the queue, the engine and reads of the history store. A long queue means load; a long engine time, a large or slow model.",
        "s",
        [
            Query(quantile(0.99, "atspeed_queue_seconds"), "queue"),
            Query(quantile(0.99, "atspeed_engine_seconds"), "engine"),
            Query(quantile(0.99, "atspeed_history_latency_seconds", 'operation="read"'), "histories"),
        ],
    ),
    Panel(
        "Steps of the engine",
        "Duration of engine steps: one forward of the target with its drafting.",
        "s",
        percentiles("atspeed_step_seconds"),
    ),
]
SATURATION = [
    Panel(
        "Expected wait",
        "Expected time until each engine has finished its requests; admission and autoscaling use it.",
        "s",
        [Query(f"max by (instance) (atspeed_expected_wait_seconds{{{CHOSEN}}})", "{{instance}}")],
    ),
    Panel(
        "Queue",
        "Waiting and running requests.",
        "none",
        [
            Query(f"sum(atspeed_waiting_requests{{{CHOSEN}}})", "waiting"),
            Query(f"sum(atspeed_running_requests{{{CHOSEN}}})", "running"),
        ],
    ),
    Panel(
        "Key/value slots",
        "Share of slots of running requests, and of the prefix cache, which is evicted when slots are needed.",
        "percentunit",
        [
            Query(f"sum(atspeed_kv_slots_used{{{CHOSEN}}}) / sum(atspeed_kv_slots{{{CHOSEN}}})", "running"),
            Query(f"sum(atspeed_kv_slots_cached{{{CHOSEN}}}) / sum(atspeed_kv_slots{{{CHOSEN}}})", "cached"),
        ],
    ),
    Panel(
        "Prompt tokens from the cache",
        "Share of prompt tokens found by prefix caching. It falls when users are routed to other replicas than before.",
        "percentunit",
        [Query(f"{per_second('atspeed_cached_tokens_total')} / {per_second('atspeed_prompt_tokens_total')}")],
    ),
    Panel(
        "API process",
        "Lag of its event loop (p99). Above 50 ms, clients wait for the API process instead of the engine.",
        "s",
        [Query(quantile(0.99, "atspeed_event_loop_lag_seconds"), "lag")],
    ),
    Panel(
        "History store",
        "Operations per second, and failed operations per second.",
        "ops",
        [
            Query(per_second("atspeed_history_latency_seconds_count", "operation"), "{{operation}}"),
            Query(per_second("atspeed_history_errors_total"), "failed"),
        ],
    ),
]
CONTROL = [
    Panel(
        "Control store",
        "Replicas that reach the control store, and those that found it without its state. Without it nothing can be changed; lists go on.",
        "none",
        [Query(f"sum(atspeed_control_up{{{CHOSEN}}})", "reach it"), Query(f"sum(atspeed_control_lost{{{CHOSEN}}})", "found it empty")],
    ),
    Panel(
        "Behind",
        "Time since when each replica may not have done what others have written. GET /v1/control says why.",
        "s",
        [Query(f"max by (instance) (atspeed_control_behind_seconds{{{CHOSEN}}})", "{{instance}}")],
    ),
    Panel(
        "Revision",
        "The last change that each replica has applied: all lines are one, but for moments.",
        "none",
        [Query(f"max by (instance) (atspeed_control_revision{{{CHOSEN}}})", "{{instance}}")],
    ),
]


def oncall() -> Dashboard:
    """Build the dashboard."""
    rows = [("Is it up?", UP), ("Traffic", TRAFFIC), ("Latency", LATENCY), ("Saturation", SATURATION), ("Agreement", CONTROL)]
    return page("atspeed-oncall", "atspeed: on call", "Traffic, errors, latency and saturation of all replicas.", rows)
