"""Objectives: against cases worked by hand, against numerical gradients, and that rows without weight count for nothing."""

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

from drafting.alignment import objectives

ALL = torch.tensor([True])
# q = (1/2, 1/4, 1/4) and p = (1/4, 1/2, 1/4): logits are logarithms up to a constant.
Q = torch.tensor([[0.5, 0.25, 0.25]]).double()
LOGITS = Q.log() + 3.0
P = torch.tensor([[0.25, 0.5, 0.25]]).double()


def test_forward_kl_by_hand() -> None:
    # 1/4 log(1/2) + 1/2 log 2 + 1/4 log 1
    assert objectives.forward_kl(LOGITS, P).item() == pytest.approx(log(2) / 4)


def test_forward_kl_of_a_certain_teacher_is_cross_entropy() -> None:
    certain = torch.tensor([[0.0, 1.0, 0.0]]).double()
    assert objectives.forward_kl(LOGITS, certain).item() == pytest.approx(log(4))


def test_total_variation_by_hand() -> None:
    assert objectives.total_variation(LOGITS, P, ALL).item() == pytest.approx(0.25)


def test_total_variation_of_a_cold_draft_is_that_of_its_argmax() -> None:
    assert objectives.total_variation(LOGITS, P, ALL, temperature=1e-3).item() == pytest.approx(0.75)


def test_seqkd_counts_every_list_token_alike() -> None:
    # Two lists go through token 0 and one through token 1: (2 log 2 + log 4) / 3.
    weights = torch.tensor([[2.0, 1.0, 0.0]]).double()
    assert objectives.list_cross_entropy(LOGITS, weights).item() == pytest.approx(4 * log(2) / 3)


def test_atspeed_s_by_hand() -> None:
    # The draft's top 2 are tokens 0 and 1: q' = (2/3, 1/3), p' = (1/3, 2/3), and y_K is token 1 with p = 1/2.
    logits = torch.tensor([[0.5, 0.25, 0.2]]).double().log()
    divergence = 2 / 3 * log(2) - 1 / 3 * log(2)
    entropy = -(2 / 3 * log(2 / 3) + 1 / 3 * log(1 / 3))
    found = objectives.top_reverse_kl(logits, P, ALL, top=2)
    assert found.item() == pytest.approx(divergence + 0.5 * entropy)
    assert objectives.top_reverse_kl(logits, P, ALL, top=2, density=0.0).item() == pytest.approx(divergence)


def test_atspeed_s_of_the_teacher_itself_leaves_the_density_alone() -> None:
    assert objectives.top_reverse_kl(P.log(), P, ALL, top=3, density=0.0).item() == pytest.approx(0.0, abs=1e-12)


def test_coverage_by_hand() -> None:
    # The draft keeps two: no other continuation may score higher than the worst of the target's two beams, -4, but one scores -2.
    scores = torch.tensor([[-1.0, -2.0, -3.0, -4.0]]).double()
    wanted = torch.tensor([[True, False, False, True]])
    found = objectives.coverage(scores, wanted, reach=2, margin=1.0)
    assert found.item() == pytest.approx(log(1 + torch.tensor(3.0).exp().item()))
    assert objectives.coverage(scores, wanted, reach=4).item() == 0.0


def test_coverage_lets_as_many_others_in_as_the_draft_has_room_for() -> None:
    # Of three, one may be another: the bar is the second best of the others, -3.
    scores = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -5.0]]).double()
    wanted = torch.tensor([[True, False, False, True, False]])
    found = objectives.coverage(scores, wanted, reach=3, margin=0.0)
    assert found.item() == pytest.approx(log(1 + torch.tensor(1.0).exp().item()))


def test_coverage_never_pushes_a_wanted_beam_down() -> None:
    logits, _, _ = random_case()
    wanted = torch.zeros_like(logits, dtype=torch.bool)
    wanted[:, :3] = True
    logits.requires_grad_()
    objectives.coverage(logits, wanted, reach=4).backward()
    assert logits.grad is not None
    assert (logits.grad[wanted] <= 0).all()
    assert (logits.grad[~wanted] >= 0).all()
    assert logits.grad.any()


def test_coverage_falls_as_the_worst_beam_rises() -> None:
    wanted = torch.tensor([[True, False, False, True]])
    losses = [objectives.coverage(torch.tensor([[-1.0, -2.0, -3.0, score]]), wanted, reach=2).item() for score in (-9.0, -4.0, -1.5)]
    assert losses == sorted(losses, reverse=True)


def test_coverage_of_a_level_without_candidates_has_no_gradient() -> None:
    scores = torch.full((2, 4), float("-inf")).double().requires_grad_()
    loss = objectives.coverage(scores, torch.zeros(2, 4, dtype=torch.bool), reach=2)
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.isnan().any()


def random_case(rows: int = 5, columns: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    teacher = torch.randn(rows, columns, generator=generator, dtype=torch.float64).softmax(-1)
    return logits, teacher, torch.tensor([True, True, False, True, True])


Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
WEIGHTED: dict[str, Objective] = {
    # A list goes through no row of weight 0.
    "seqkd": lambda logits, teacher, weights: objectives.list_cross_entropy(logits, (20 * teacher).round() * weights[:, None]),
    "tvdkd": objectives.total_variation,
    "atspeed-s": lambda logits, teacher, weights: objectives.top_reverse_kl(logits, teacher, weights, top=4, temperature=0.7),
}
OBJECTIVES: dict[str, Objective] = WEIGHTED | {
    "wordkd": lambda logits, teacher, _: objectives.forward_kl(logits, teacher),
    "atspeed-c": lambda logits, teacher, _: objectives.coverage(logits, teacher > 0.15, reach=3),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_right(name: str) -> None:
    logits, teacher, weights = random_case()
    assert torch.autograd.gradcheck(lambda x: OBJECTIVES[name](x, teacher, weights), logits.requires_grad_())


@pytest.mark.parametrize("name", WEIGHTED)
def test_rows_without_weight_count_for_nothing(name: str) -> None:
    logits, teacher, mask = random_case()
    logits.requires_grad_()
    loss = WEIGHTED[name](logits, teacher, mask)
    loss.backward()
    assert torch.allclose(loss, WEIGHTED[name](logits[mask], teacher[mask], mask[mask]))
    assert logits.grad is not None
    assert not logits.grad[~mask].any()
    assert logits.grad[mask].any()
    nothing = WEIGHTED[name](logits, teacher, torch.zeros_like(mask))
    assert nothing.item() == 0.0


@pytest.mark.parametrize("name", ["wordkd", "tvdkd", "atspeed-s"])
def test_the_teacher_itself_is_a_minimum(name: str) -> None:
    logits, teacher, weights = random_case()
    own = teacher.log().requires_grad_()
    assert OBJECTIVES[name](own, teacher, weights) < OBJECTIVES[name](logits, teacher, weights)
