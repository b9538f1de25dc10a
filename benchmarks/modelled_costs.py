"""The costs of machines that are not at hand, in tokens of the target.

Invariant: a machine costs the same in every benchmark that models it, so their speed-ups can be compared.
"""

from drafting.plans.costs import CostCurve, ForwardCosts

# Cost of a draft's forward as a share of the target's: most tables are about a draft of a hundredth of the target's size.
DRAFT_SHARE = 0.01


def modelled_costs(balance: float, draft_share: float = DRAFT_SHARE, free: float = 0.0) -> ForwardCosts:
    """The costs of a machine on which the fixed part of a forward of the target costs as much as `balance` tokens.

    Args:
        draft_share: cost of a forward of the draft, as a share of the target's.
        free: tokens that a forward of the target has at no cost: some hundred on a GPU.
    """
    return ForwardCosts(CostCurve(balance, 1.0, free), CostCurve(draft_share * balance, draft_share))
