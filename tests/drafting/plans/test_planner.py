"""The planner on machines and drafts made up for the purpose."""

from dataclasses import replace

import numpy as np
import pytest

from drafting.beam.rule import Tolerance, Verification
from drafting.plans import learned, trials
from drafting.plans.acceptance import BONUSES, within_gaps
from drafting.plans.costs import CostCurve, ForwardCosts, LevelValues
from drafting.plans.given import Given, GivenOutcome
from drafting.plans.last_lists import LEAST_LOOKS
from drafting.plans.learned import LEARNED_AT_ONCE
from drafting.plans.plan import MOST_PROPOSALS, Action, DraftRound, LevelOutcome
from drafting.plans.planner import DRAFTED_STEPS, Planner
from drafting.plans.running_costs import StepTimes
from drafting.plans.trials import EXPLORE_EVERY, IDLE_ROUNDS, PLAN_WHEN_IDLE
from tests.drafting.plans.test_acceptance import kept_before, outcome, proposals

FAN_OUT = (90.0, 70.0, 1.7, 1.1)
WIDTHS = (1, 10, 10, 10, 10)
CHEAP_DRAFT = CostCurve(3.0, 0.01)


def planner(balance: float, draft: CostCurve | None = CHEAP_DRAFT) -> Planner:
    return Planner(ForwardCosts(CostCurve(balance, 1.0), draft), FAN_OUT)


def start(depth: int = 0, sharing: int = 1, tokens: int = 0, group_size: int | None = None) -> DraftRound:
    return DraftRound(WIDTHS, depth, WIDTHS[depth], sharing, group_size or sharing, tokens)


def flat_at_first(free: float, draft: CostCurve = CHEAP_DRAFT) -> Planner:
    """On a machine like that of `planner(50)` beyond the free tokens."""
    return Planner(ForwardCosts(CostCurve(50.0, 1.0, free), draft), FAN_OUT)


@pytest.mark.parametrize("helps", [True, False])
def test_what_the_target_kept_before_is_ranked_higher_where_that_helps(helps: bool) -> None:
    plan, rng = planner(balance=300), np.random.default_rng(0)
    here = replace(start(), offered=Given.LAST)
    assert plan.bonus(here) == 0, "nothing is known yet"
    for _ in range(100):
        plan.learn([kept_before(rng, helps)])
    assert plan.bonus(start()) == 0, "nothing is offered"
    if not helps:
        assert plan.bonus(here) <= 0.5
        return
    assert plan.bonus(here) == BONUSES[-1]
    width = plan.width(here, proposals(0.05), None)
    plain = planner(balance=300)
    for _ in range(100):
        plain.learn([replace(kept_before(rng, helps), covered={}, held={})])
    assert 10 <= width < 80 <= plain.width(start(), proposals(0.05), None)


def test_prefixes_that_are_in_the_tree_cost_nothing() -> None:
    """As many as are there may be drafted beside where each new one costs too much."""
    plan = planner(balance=25)
    new = np.arange(256) >= 60
    assert plan.width(start(), proposals(0.05), new) >= 40 > plan.width(start(), proposals(0.05), None)


def test_tokens_that_cost_as_much_as_forwards_are_not_drafted() -> None:
    plan = planner(balance=0.5)
    for depth in range(4):
        assert plan.action(start(depth), has_draft=True) is Action.STOP


def test_forwards_that_cost_much_more_than_tokens_are_saved() -> None:
    assert planner(balance=2000, draft=None).action(start(), has_draft=False) is Action.CHILDREN
    plan = planner(balance=2000)
    here = start()
    assert plan.action(here, has_draft=True) is Action.BEAM
    assert plan.width(here, proposals(0.1), None) > 10


def test_a_level_that_is_not_read_is_as_wide_as_levels_are_on_average() -> None:
    plan = planner(balance=300)
    guess = plan.width(start(), None, None)
    assert 10 < guess < MOST_PROPOSALS
    assert plan.width(start(sharing=64), None, None) < guess
    widths = []
    for spacing in (0.5, 0.02):
        plan = planner(balance=300)
        for _ in range(50):
            plan.learn([LevelOutcome(1, np.arange(0, 20, 2), proposals(spacing), 0)])
        widths.append(plan.width(start(), None, None))
        assert widths[-1] == plan.width(start(), proposals(spacing), None)
    assert widths[0] < widths[1]
    assert planner(balance=100_000).width(start(), None, None) <= MOST_PROPOSALS


def test_a_shared_forward_is_worth_less() -> None:
    alone = planner(balance=300)
    crowd = planner(balance=300)
    width = alone.width(start(), proposals(0.1), None)
    assert width > 10
    assert crowd.width(start(sharing=64), proposals(0.1), None) < width
    assert crowd.action(start(sharing=1000), has_draft=True) is Action.STOP


def test_a_draft_is_paid_by_those_who_stand_alike() -> None:
    """Its forward costs a tenth of the target's: shared by eight it is worth its price, but not to one of eight whom nobody joins."""
    plan = planner(balance=300, draft=CostCurve(30.0, 0.01))
    assert plan.action(start(sharing=8), has_draft=True) is Action.BEAM
    assert plan.action(start(sharing=8, group_size=1), has_draft=True) is not Action.BEAM


def test_a_round_must_promise_a_share_of_its_whole_forward() -> None:
    plan = planner(balance=50, draft=None)
    assert plan.action(start(depth=2), has_draft=False) is Action.CHILDREN
    assert plan.action(start(depth=2, tokens=2000), has_draft=False) is Action.STOP


@pytest.mark.parametrize("target", [CostCurve(300.0, 0.0), CostCurve(300.0, 1.0, free=5000.0)])
def test_where_tokens_cost_nothing_all_that_may_be_wanted_is_drafted(target: CostCurve) -> None:
    plan = Planner(ForwardCosts(target, CostCurve(3.0, 0.0)), FAN_OUT)
    here = start()
    while (action := plan.action(here, has_draft=True)) is not Action.STOP:
        if action is Action.BEAM:
            width = plan.width(here, proposals(0.05), None)
            # Proposals further down than the last gap are as good as wrong, free or not.
            assert width == within_gaps(proposals(0.05), 10)[-1]
        else:
            width = round(here.nodes * FAN_OUT[here.levels])
        here.levels, here.nodes, here.drafted = here.levels + 1, width, here.drafted + width
        here.unranked |= action is Action.CHILDREN
    assert here.levels == 3


def test_free_tokens_are_drafted_and_no_others_where_those_cost_too_much() -> None:
    steep = ForwardCosts(CostCurve(0.5, 1.0), CHEAP_DRAFT)
    assert Planner(steep, FAN_OUT).action(start(), has_draft=False) is Action.STOP
    some = Planner(ForwardCosts(CostCurve(0.5, 1.0, free=600.0), CostCurve(0.001, 0.0)), FAN_OUT)
    here = start()
    assert some.action(here, has_draft=True) is Action.BEAM
    assert 100 < some.width(here, proposals(0.02), None) <= 200


def test_what_is_free_is_what_the_batch_leaves() -> None:
    """Prompts take the free tokens first; then, and where many requests share them, a node costs what it costs on a straight line."""
    straight = planner(50).width(start(), proposals(0.05), None)
    assert straight < flat_at_first(300).width(start(), proposals(0.05), None)
    widths = [flat_at_first(1000).width(start(tokens=tokens), proposals(0.05), None) for tokens in (0, 500, 900, 1000, 5000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    crowd = [flat_at_first(1000).width(start(sharing=sharing), proposals(0.05), None) for sharing in (1, 4, 16, 64)]
    assert crowd == sorted(crowd, reverse=True)
    assert crowd[0] > crowd[-1]


def test_what_a_round_has_drafted_is_no_longer_free() -> None:
    plan = flat_at_first(300)
    fresh, full = start(), start()
    full.drafted = 300
    assert plan.width(full, proposals(0.05), None) < plan.width(fresh, proposals(0.05), None)


def test_a_sure_draft_is_kept_narrow_and_an_unsure_one_wide() -> None:
    plan = planner(balance=300)
    assert 0 < plan.width(start(), proposals(0.5), None) < plan.width(start(), proposals(0.05), None)


def test_a_draft_that_is_never_right_is_no_longer_asked_but_now_and_then() -> None:
    plan = never_right(planner(balance=100))
    actions = [plan.action(start(1), has_draft=True) for _ in range(640)]
    assert 1 <= actions.count(Action.BEAM) <= 20


def never_right(plan: Planner) -> Planner:
    for _ in range(100):
        plan.learn([LevelOutcome(depth, np.full(10, -1), proposals(0.1), 0) for depth in (1, 2, 3)])
    return plan


@pytest.mark.parametrize(("sharing", "group_size"), [(1, 1), (8, 1), (8, 4), (64, 64)])
def test_trials_are_counted_in_forwards(sharing: int, group_size: int) -> None:
    """Of a forward that eight share, one decides for as many as stand alike: all decisions of a forward together count as one."""
    plan = never_right(planner(balance=100))
    forwards = 1270
    tried = 0
    for _ in range(forwards * sharing // group_size):
        here = start(1, sharing, group_size=group_size)
        plan.action(here, has_draft=True)
        tried += here.exploring
    assert tried == pytest.approx(forwards / EXPLORE_EVERY, abs=1)


@pytest.mark.parametrize("sharing", [1, 2, 8])
@pytest.mark.parametrize("depths", [2, 3, 4])
def test_every_depth_has_its_trials(depths: int, sharing: int) -> None:
    """Also where depths come by in step with each other and with the forwards."""
    plan = Planner(ForwardCosts(CostCurve(100.0, 1.0), CHEAP_DRAFT), (*FAN_OUT, 1.1))
    tried, widths = [], (1, *[10] * (depths + 1))
    for number in range(4 * depths * sharing * EXPLORE_EVERY):
        here = DraftRound(widths, number % depths, widths[number % depths], sharing)
        plan.action(here, has_draft=True)
        tried += [number % depths] if here.exploring else []
    assert [tried.count(depth) for depth in range(depths)] == [4] * depths


def test_what_children_taught_is_not_worked_out_anew_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, new_values, planned = planner(balance=50, draft=None), Planner._new_values, []

    def counted(self: Planner, here: DraftRound, *args: float) -> LevelValues:
        planned.append(here)
        return new_values(self, here, *args)

    monkeypatch.setattr(Planner, "_new_values", counted)
    for _ in range(1000):
        here = start(depth=2)
        assert plan.action(here, has_draft=False) is Action.CHILDREN
        here.levels = 1
        plan.learn_children(here, parents=10, children=17)
    assert 10 < len(planned) < 100


def test_a_draft_that_is_always_right_is_asked_for_every_level() -> None:
    plan = planner(balance=300)
    for _ in range(100):
        plan.learn([outcome(depth, worst_rank=11, levels=levels) for depth in (1, 2, 3) for levels in range(depth)])
    here = start()
    for depth in (1, 2, 3):
        assert plan.action(here, has_draft=True) is Action.BEAM
        width = plan.width(here, proposals(0.1), None)
        assert 12 <= width <= 14
        here.levels, here.nodes = depth, width
        assert here.certainty > 0.8**depth
    assert plan.action(here, has_draft=True) is Action.STOP


def test_given_drafts_that_hold_all_or_nothing_are_not_relied_on_beside_a_draft() -> None:
    """They hold the third level for certain where they held those above, but it was the draft that held these."""
    plan = planner(balance=300)
    for number in range(100):
        holds = number % 2 == 0
        for depth in (1, 2, 3):
            plan.learn_given([GivenOutcome(Given.LAST, 10, depth, depth - 1 if holds else 0, holds)])
            covered, held = {Given.LAST: np.full(10, holds)}, {Given.LAST: np.zeros(256, bool)}
            plan.learn([replace(outcome(depth, worst_rank=11, levels=depth - 1), covered=covered, held=held)])
    begun = replace(start(), given=Given.LAST, offered=Given.LAST)
    assert plan.action(replace(begun, levels=2, nodes=12, certainty=0.95), has_draft=True) is Action.BEAM


@pytest.mark.parametrize(("balance", "chosen"), [(100, Given.LAST), (25, Given.NONE)])
def test_what_given_drafts_save_in_later_rounds_counts(balance: float, chosen: Given) -> None:
    """They never hold the first level, so they are of no use to the first round, but all of the two levels below it."""
    plan = planner(balance, draft=None)
    for _ in range(100):
        plan.learn_given([GivenOutcome(Given.LAST, 10, depth, max(depth - 2, 0), depth > 1) for depth in (1, 2, 3)])
    assert plan.given(replace(start(), offered=Given.LAST), {Given.LAST: 60}) is chosen


@pytest.mark.parametrize(("nodes", "chosen"), [(12, Given.LAST), (20, Given.NONE)])
def test_where_the_draft_is_worth_its_forwards_given_drafts_need_win_no_more_than_their_tokens(nodes: int, chosen: Given) -> None:
    """They hold five of the twelve prefixes that the draft needs for each of three levels: fifteen tokens, a twentieth of a forward."""
    plan, held = planner(balance=300), {Given.LAST: np.arange(256) < 5}
    for _ in range(200):
        for depth in (1, 2, 3):
            level = outcome(depth, worst_rank=11, levels=depth - 1)
            plan.learn([replace(level, covered={Given.LAST: level.ranks < 5}, held=held)])
    assert plan.given(replace(start(), offered=Given.LAST), {Given.LAST: nodes}) is chosen


def test_of_a_large_batch_some_levels_of_every_depth_are_sampled() -> None:
    plan, batch = planner(balance=300), [depth for _ in range(64) for depth in (1, 2, 3)]
    depths: list[int] = []
    for _ in range(12):
        sampled = plan.sample(len(batch))
        assert len(sampled) == LEARNED_AT_ONCE
        depths += [batch[number] for number in sampled]
    assert {depth: depths.count(depth) for depth in (1, 2, 3)} == dict.fromkeys((1, 2, 3), 4 * LEARNED_AT_ONCE)
    assert plan.sample(3) == range(3)


def test_last_lists_are_looked_at_where_that_wins_more_than_it_takes() -> None:
    """They hold nothing of what the target keeps, then all of it, then nothing again; some users are looked at all the time."""
    plan = Planner(ForwardCosts(CostCurve(100.0, 1.0), None), FAN_OUT, follows_clock=True)
    users = [f"user {number}" for number in range(500)]
    for holds, searches in ((False, 1500), (True, 1500), (False, 2500)):
        for _ in range(searches):
            plan.given(replace(start(), offered=Given.LAST), {Given.LAST: 60})
            plan.learn_given([GivenOutcome(Given.LAST, 10, depth, depth - 1 if holds else 0, holds) for depth in (1, 2, 3)])
            plan.learn_times(StepTimes(30, 130.0, 0, 0, 0.0, searches=1, last_seconds=2.0))
        wanted = {user for user in users if plan.wants_last(start(), user)}
        assert wanted == set(users) if holds else 10 < len(wanted) < 60, holds
        assert wanted == {user for user in users if plan.wants_last(start(), user)}


def test_last_lists_are_looked_at_before_they_are_judged() -> None:
    plan = Planner(ForwardCosts(CostCurve(100.0, 1.0), None), FAN_OUT, follows_clock=True)
    for number in range(2 * LEAST_LOOKS):
        assert all(plan.wants_last(start(), str(user)) for user in range(50)) or number >= LEAST_LOOKS
        plan.given(replace(start(), offered=Given.LAST), {Given.LAST: 60})
        plan.learn_times(StepTimes(30, 130.0, 0, 0, 0.0, searches=1, last_seconds=2.0))
    assert not all(plan.wants_last(start(), str(user)) for user in range(50))


def test_lists_of_users_who_do_not_come_back_are_not_kept() -> None:
    """Keeping them takes as long as where users do; once they come back, they are kept again."""
    plan = Planner(ForwardCosts(CostCurve(100.0, 1.0), None), FAN_OUT, follows_clock=True)
    users = [f"user {number}" for number in range(500)]
    for _ in range(2 * LEAST_LOOKS):
        plan.misses_last(start())
        plan.learn_times(StepTimes(30, 130.0, 0, 0, 0.0, searches=1, last_seconds=2.0))
    assert 10 < sum(plan.wants_last(start(), user) for user in users) < 60
    for _ in range(LEAST_LOOKS):
        plan.learn_given([GivenOutcome(Given.LAST, 10, depth, depth - 1, True) for depth in (1, 2, 3)])
        plan.given(replace(start(), offered=Given.LAST), {Given.LAST: 60})
    assert all(plan.wants_last(start(), user) for user in users)


def test_lists_that_may_differ_take_narrower_drafts_and_others_do_not() -> None:
    """The two worst of ten prefixes are far down, and may be missing where two items may be others."""
    plan, strict = planner(balance=300), planner(balance=300)
    level = replace(outcome(1, worst_rank=60), ranks=np.append(np.arange(8), (55, 60)))
    for _ in range(100):
        strict.learn([level])
        plan.learn([level, replace(level, tolerance=Tolerance(2), shares=np.full(10, 0.5))])
    tolerant = replace(start(), tolerance=Tolerance(2))
    assert plan.width(start(), proposals(0.1), None) == strict.width(start(), proposals(0.1), None) > 60
    assert plan.width(tolerant, proposals(0.1), None) < 15
    assert planner(balance=300).width(tolerant, proposals(0.1), None) == planner(balance=300).width(start(), proposals(0.1), None)


@pytest.mark.parametrize("balance", [0.5, 2000.0])
def test_where_nothing_is_drafted_few_searches_are_planned_for(balance: float) -> None:
    """Until something is drafted again: forwards have become dear."""
    plan = planner(balance)
    for _ in range(IDLE_ROUNDS):
        assert plan.drafts_for(None)
        plan.action(start(), has_draft=True)
    planned = [plan.drafts_for(None) for _ in range(8 * PLAN_WHEN_IDLE)]
    assert sum(planned) == (8 if balance < 1 else len(planned))
    plan.costs = planner(balance=2000).costs
    plan.action(start(sharing=2), has_draft=True)
    assert all(plan.drafts_for(None) for _ in range(PLAN_WHEN_IDLE))


def test_children_that_each_request_pays_for_are_drafted_for_few() -> None:
    """A forward is saved for all of a batch, but what drafting takes grows with it."""
    costs = ForwardCosts(CostCurve(40.0, 0.1), None, children=10.0)
    for further, pays in ((0.0, True), (10.0, False)):
        plan = Planner(replace(costs, further_children=further), FAN_OUT)
        assert plan.action(start(depth=2), has_draft=False) is Action.CHILDREN
        assert (plan.action(start(depth=2, sharing=16), has_draft=False) is Action.CHILDREN) == pays


def test_a_search_for_which_nothing_will_pay_is_given_up() -> None:
    """But not where a deeper level pays, nor where a trial is due."""
    for prompt in (0, 5000):
        assert not planner(balance=40, draft=None).gives_up(start(tokens=prompt)), "children pay at the last level"
    plan, tried = planner(balance=0.5), [0, 0, 0]
    for _ in range(2 * EXPLORE_EVERY):
        for depth in range(3):
            here = start(depth)
            assert plan.action(here, has_draft=True) is Action.STOP or here.exploring
            tried[depth] += here.exploring
            if plan.gives_up(here):
                break
    assert tried == [2, 2, 2]


def test_users_whose_last_lists_may_help_are_planned_for_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "EXPLORE_EVERY", 10_000)
    plan, users = planner(balance=0.5, draft=None), [f"user {number}" for number in range(500)]
    for _ in range(IDLE_ROUNDS):
        plan.action(start(), has_draft=False)
    assert all(map(plan.drafts_for, users)), "nobody's was looked at"
    plan.costs = replace(plan.costs, last=2.0)
    for _ in range(2 * LEAST_LOOKS):
        plan.given(replace(start(), offered=Given.LAST), {Given.LAST: 60})
    sampled = {user for user in users if plan.wants_last(start(), user)}
    planned = [user for user in users if plan.drafts_for(user)]
    assert sampled <= set(planned)
    assert len(planned) - len(sampled) == (len(users) - len(sampled)) // PLAN_WHEN_IDLE


def test_children_that_the_host_cannot_count_cost_what_is_computed_in_their_place() -> None:
    plan = planner(balance=300, draft=None)
    below = replace(start(depth=1), levels=1, nodes=10)
    assert plan.action(below, has_draft=False) is Action.CHILDREN
    assert plan.action(replace(below, most_children=20), has_draft=False) is Action.CHILDREN
    assert plan.action(replace(below, most_children=2000), has_draft=False) is Action.STOP


def test_children_are_counted_before_they_are_drafted_again() -> None:
    plan = planner(balance=50, draft=None)
    deep = start(depth=2)
    assert plan.action(deep, has_draft=False) is Action.CHILDREN
    for _ in range(200):
        plan.learn_children(DraftRound(WIDTHS, 2, 200, 1, levels=1), parents=10, children=200)
    for _ in range(64):
        last = plan.action(start(depth=2), has_draft=False)
    assert last is Action.STOP


def test_what_the_draft_has_not_rated_is_not_continued_by_it() -> None:
    plan = planner(balance=100_000)
    here = DraftRound(WIDTHS, 0, 90, 1, levels=1, unranked=True)
    assert plan.action(here, has_draft=True) is not Action.BEAM


@pytest.mark.parametrize("follows_clock", [True, False])
def test_a_planner_that_follows_the_clock_notices_what_forwards_really_cost(follows_clock: bool) -> None:
    """Measured beside a noisy neighbour, a forward's fixed part seemed worth 300 tokens; really it is worth none."""
    plan = Planner(ForwardCosts(CostCurve(300.0, 1.0), CHEAP_DRAFT), FAN_OUT, follows_clock)
    assert plan.action(start(), has_draft=True) is not Action.STOP
    for number in range(400):
        tokens = (10, 30, 60)[number % 3]
        plan.learn_times(StepTimes(tokens, 1.0 * tokens, 1, 10, 3.0))
    assert (plan.action(start(), has_draft=True) is Action.STOP) == follows_clock


def test_what_a_planner_remembers_is_bounded() -> None:
    plan = flat_at_first(3e5)
    for sharing in range(1, 700):
        here = start(sharing=sharing, tokens=300 * sharing)
        plan.action(here, has_draft=True)
        here.levels, here.nodes, here.certainty = 1, sharing, 1 / sharing
        plan.action(here, has_draft=True)
    assert len(plan._known_values) <= 256
    assert sum(len(values.weighed) for values in plan._known_values._values.values()) <= 4 * 256


def test_what_is_learned_of_tolerances_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose them; what is used goes on being known."""
    monkeypatch.setattr(learned, "MOST_GAPS", 20)
    plan, level = planner(balance=300), outcome(1, worst_rank=60)
    for number in range(100):
        far = Tolerance(2 ** (number % 60), 0.5 ** (number + 1))
        plan.learn([level, replace(level, tolerance=far, shares=np.zeros(10))])
        plan.action(replace(start(), tolerance=far), has_draft=True)
    assert len(plan._learned._gaps) == 20
    assert plan._learned.gaps((Verification.STRICT, Given.NONE, Given.NONE, None), 10, 1, 0).seen == 100


def test_a_search_is_plain_when_a_draft_was_accepted_in_each_of_many_steps() -> None:
    """Without it nothing would tell what drafting adds to a step. Steps without a draft tell it themselves; constant costs are known."""
    following, constant = Planner(planner(1.0).costs, FAN_OUT, follows_clock=True), planner(1.0)
    for levels, expected in ((1, True), (1, False), (1, False), (0, True)):
        for plan in (following, constant):
            for _ in range(DRAFTED_STEPS - expected):
                plan.learn_times(StepTimes(30, 31.0, 0, 0, 0.0, levels))
        assert following.drafts_for(None) == expected
        assert following.drafts_for(None)
        assert constant.drafts_for(None)
