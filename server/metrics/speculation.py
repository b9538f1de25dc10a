"""What speculation costs and saves, for Prometheus.

Invariant: labels have few values. `plan` is what was drafted for a list under the one plan that the server runs (a fixed plan's name, or
`auto:` and what the planner made of it), `verification` is one of three, `depth` is at most an identifier's length.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from verification.request import BeamResult, StepReport

# A draft's level takes a fraction of a millisecond on a small machine already.
STEP_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


class SpeculationMetrics:
    """Accepted steps per target forward say what a plan saves; wasted nodes and draft seconds say what it costs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        kinds = ["plan", "verification"]
        self.decisions = Counter(
            "atspeed_plan_decisions_total", "Finished lists, by what was drafted for them and how it was judged.", kinds, registry=registry
        )
        self.target_forwards = Counter(
            "atspeed_target_forwards_total",
            "Forwards of the target that finished lists took part in; those that share one count it each.",
            kinds,
            registry=registry,
        )
        self.accepted_steps = Counter(
            "atspeed_accepted_steps_total",
            "Levels that the target accepted from a draft, each one forward saved for its list.",
            [*kinds, "depth"],
            registry=registry,
        )
        self.drafted_nodes = Counter("atspeed_drafted_nodes_total", "Tree nodes that drafts added.", registry=registry)
        self.wasted_nodes = Counter(
            "atspeed_wasted_nodes_total", "Drafted nodes that no beam of the target came to hold.", registry=registry
        )
        self.draft_tokens = Counter("atspeed_draft_tokens_total", "Tokens in forwards of the draft model.", registry=registry)
        self.draft_forwards = Counter("atspeed_draft_forwards_total", "Forwards of the draft model.", registry=registry)
        self.target_seconds = Histogram(
            "atspeed_target_seconds", "Time of a step in the target's forward.", buckets=STEP_BUCKETS, registry=registry
        )
        self.draft_seconds = Histogram(
            "atspeed_draft_seconds", "Time of a step for drafting, forwards of the draft included.", buckets=STEP_BUCKETS, registry=registry
        )
        self.draft_up = Gauge("atspeed_draft_up", "1 while a draft model is at work, else 0.", registry=registry)
        self.graph_forwards = Counter(
            "atspeed_graph_forwards_total",
            "Forwards of models that have CUDA graphs, by whether one was replayed or none fitted.",
            ["outcome"],
            registry=registry,
        )
        self.drafts_dropped = Counter("atspeed_drafts_dropped_total", "Draft models dropped because they failed.", registry=registry)

    def observe_ready(self, drafts: bool, has_draft: bool) -> None:
        """Notes whether the draft of an engine that serves now is at work, if it was given one."""
        self.draft_up.set(drafts)
        if has_draft and not drafts:
            self.drafts_dropped.inc()

    def observe_step(self, step: StepReport) -> None:
        """Takes over what one step of the engine cost."""
        self.target_seconds.observe(step.target_seconds)
        self.draft_seconds.observe(step.draft_seconds)
        self.draft_tokens.inc(step.draft_tokens)
        self.draft_forwards.inc(step.draft_forwards)
        if step.draft_failed:
            self.draft_up.set(0)
            self.drafts_dropped.inc()

    def observe_graphs(self, replayed: int, skipped: int) -> None:
        """Counts forwards of models that have CUDA graphs."""
        if replayed or skipped:
            self.graph_forwards.labels("replayed").inc(replayed)
            self.graph_forwards.labels("skipped").inc(skipped)

    def observe_list(self, result: BeamResult) -> None:
        """Take over what one list cost and saved."""
        usage, kind = result.usage, (result.usage.plan, result.rule.verification.value)
        self.decisions.labels(*kind).inc()
        self.target_forwards.labels(*kind).inc(usage.target_forwards)
        for depth in usage.accepted_depths:
            self.accepted_steps.labels(*kind, str(depth)).inc()
        self.drafted_nodes.inc(usage.drafted_nodes)
        self.wasted_nodes.inc(usage.drafted_nodes - usage.used_nodes)
