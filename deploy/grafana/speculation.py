"""The dashboard of speculative decoding: cost and savings of drafts."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import CHOSEN, Panel, Query, mean, page, per_second, percentiles


def _accepted(by: str = "") -> str:
    """Accepted steps per second: 0 where lists are made and none was ever accepted, for then there is no series."""
    return f"({per_second('atspeed_accepted_steps_total', by)} or 0 * {per_second('atspeed_target_forwards_total', by)})"


_ACCEPTED = _accepted()
_FORWARDS = per_second("atspeed_target_forwards_total")
_TARGET = per_second("atspeed_target_seconds_sum")
_DRAFT = per_second("atspeed_draft_seconds_sum")

SAVED = [
    Panel(
        "Speed-up over plain beam search",
        "An estimate: forwards that plain beam search would need, divided by forwards made, times the share of a step that is not "
        "drafting. It assumes that forwards with drafts cost as much as without, so it is slightly too high for large trees.",
        "none",
        [Query(f"(1 + {_ACCEPTED} / {_FORWARDS}) * {_TARGET} / ({_TARGET} + {_DRAFT})")],
        number=True,
    ),
    Panel(
        "Steps saved",
        "Share of levels without a forward of their own, because the target accepted the draft.",
        "percentunit",
        [Query(f"{_ACCEPTED} / ({_ACCEPTED} + {_FORWARDS})")],
        number=True,
    ),
    Panel(
        "Drafts at work",
        "Replicas that use their draft model, and draft models dropped after a failure; a restart of the engine loads them again.",
        "none",
        [Query(f"sum(atspeed_draft_up{{{CHOSEN}}})", "at work"), Query(f"sum(atspeed_drafts_dropped_total{{{CHOSEN}}})", "dropped")],
        number=True,
    ),
    Panel(
        "Accepted steps by level",
        "Accepted levels per second: a draft had proposed all that the target kept there, so the next level needed no forward. Below a "
        "level that was not accepted, drafting begins anew.",
        "ops",
        [Query(per_second("atspeed_accepted_steps_total", "depth"), "level {{depth}}")],
        stacked=True,
    ),
    Panel(
        "Steps saved by plan",
        "Share of each plan's levels. A plan with a low share costs more than it saves; the planner should rarely choose it.",
        "percentunit",
        [
            Query(
                f"{_accepted('plan')} / ({_accepted('plan')} + {per_second('atspeed_target_forwards_total', 'plan')})",
                "{{plan}}",
            )
        ],
    ),
    Panel(
        "Lists by plan",
        "Finished lists per second, by draft plan and verification.",
        "reqps",
        [Query(per_second("atspeed_plan_decisions_total", "plan, verification"), "{{plan}} {{verification}}")],
        stacked=True,
    ),
]
COST = [
    Panel(
        "Forwards per request",
        "Mean forwards of target and draft. Plain beam search needs one forward of the target per level.",
        "none",
        [
            Query(mean("atspeed_target_forwards_per_request"), "target"),
            Query(mean("atspeed_draft_forwards_per_request"), "draft"),
        ],
    ),
    Panel(
        "Share of a step that is drafting",
        "Time of drafting divided by the time of steps.",
        "percentunit",
        [Query(f"{_DRAFT} / {per_second('atspeed_step_seconds_sum')}")],
    ),
    Panel(
        "Target and draft, mean of a step",
        "Mean time of the target's forward and of drafting in a step.",
        "s",
        [Query(mean("atspeed_target_seconds"), "target"), Query(mean("atspeed_draft_seconds"), "draft")],
    ),
    Panel(
        "Tokens per forward",
        "Tokens in forwards of the target: load and drafts increase it.",
        "none",
        percentiles("atspeed_forward_tokens"),
    ),
    Panel(
        "Drafted nodes",
        "Drafted nodes per second: all, and those that no beam of the target used.",
        "ops",
        [
            Query(per_second("atspeed_drafted_nodes_total"), "drafted"),
            Query(per_second("atspeed_wasted_nodes_total"), "wasted"),
        ],
    ),
    Panel(
        "Draft model",
        "Forwards and tokens per second of the draft model.",
        "ops",
        [
            Query(per_second("atspeed_draft_forwards_total"), "forwards"),
            Query(per_second("atspeed_draft_tokens_total"), "tokens"),
        ],
    ),
]


def speculation() -> Dashboard:
    """Build the dashboard."""
    rows = [("Savings", SAVED), ("Cost", COST)]
    return page("atspeed-speculation", "atspeed: speculation", "Cost and savings of drafts.", rows)
