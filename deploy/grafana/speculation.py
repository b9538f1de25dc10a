"""The page about speculation: what drafts cost, and what they save."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, mean, page, per_second, percentiles

_ACCEPTED = per_second("atspeed_accepted_steps_total")
_FORWARDS = per_second("atspeed_target_forwards_total")
_TARGET = per_second("atspeed_target_seconds_sum")
_DRAFT = per_second("atspeed_draft_seconds_sum")

SAVED = [
    Panel(
        "Speed-up against plain search",
        "An estimate: forwards that plain search would need, over those that were made, times the share of a step that is not drafting. It "
        "takes a forward with drafts for as dear as one without, so it is a little too high where trees are large.",
        "none",
        [Query(f"(1 + {_ACCEPTED} / {_FORWARDS}) * {_TARGET} / ({_TARGET} + {_DRAFT})")],
        number=True,
    ),
    Panel(
        "Steps saved",
        "Share of levels that needed no forward of their own, because the target accepted what was drafted.",
        "percentunit",
        [Query(f"{_ACCEPTED} / ({_ACCEPTED} + {_FORWARDS})")],
        number=True,
    ),
    Panel(
        "Drafts at work",
        "Replicas whose draft model works, and drafts that were dropped because they failed; dropped ones come back with the engine.",
        "none",
        [Query(f"sum(atspeed_draft_up{{{CHOSEN}}})", "at work"), Query(f"sum(atspeed_drafts_dropped_total{{{CHOSEN}}})", "dropped")],
        number=True,
    ),
    Panel(
        "Accepted steps by level",
        "A second. Deeper levels are accepted only if those above are.",
        "ops",
        [Query(per_second("atspeed_accepted_steps_total", "depth"), "level {{depth}}")],
        stacked=True,
    ),
    Panel(
        "Steps saved by plan",
        "Of each plan's levels. A plan with a low share costs more than it saves; the planner should choose it seldom.",
        "percentunit",
        [
            Query(
                f"{per_second('atspeed_accepted_steps_total', 'plan')} / ({per_second('atspeed_accepted_steps_total', 'plan')} + "
                f"{per_second('atspeed_target_forwards_total', 'plan')})",
                "{{plan}}",
            )
        ],
    ),
    Panel(
        "Lists by plan",
        "What was drafted for the lists, and how drafts were judged.",
        "reqps",
        [Query(per_second("atspeed_plan_decisions_total", "plan, verification"), "{{plan}} {{verification}}")],
        stacked=True,
    ),
]
COST = [
    Panel(
        "Forwards per request",
        "Of target and draft, on average. Plain search needs one of the target per level.",
        "none",
        [
            Query(mean("atspeed_target_forwards_per_request"), "target"),
            Query(mean("atspeed_draft_forwards_per_request"), "draft"),
        ],
    ),
    Panel(
        "Share of a step that is drafting",
        "Time for drafting over the time of steps.",
        "percentunit",
        [Query(f"{_DRAFT} / {per_second('atspeed_step_seconds_sum')}")],
    ),
    Panel(
        "Target and draft, mean of a step",
        "Time in the target's forward and for drafting.",
        "s",
        [Query(mean("atspeed_target_seconds"), "target"), Query(mean("atspeed_draft_seconds"), "draft")],
    ),
    Panel("Tokens per forward", "Of the target: load and drafts make it large.", "none", percentiles("atspeed_forward_tokens")),
    Panel(
        "Drafted nodes",
        "A second: all, and those that no beam of the target came to hold.",
        "ops",
        [
            Query(per_second("atspeed_drafted_nodes_total"), "drafted"),
            Query(per_second("atspeed_wasted_nodes_total"), "wasted"),
        ],
    ),
    Panel(
        "Draft model",
        "Its forwards and tokens a second.",
        "ops",
        [
            Query(per_second("atspeed_draft_forwards_total"), "forwards"),
            Query(per_second("atspeed_draft_tokens_total"), "tokens"),
        ],
    ),
]


def speculation() -> Dashboard:
    """The page."""
    rows = [("What is saved", SAVED), ("What it costs", COST)]
    return page("atspeed-speculation", "atspeed: speculation", "What drafts cost and what they save.", rows)
