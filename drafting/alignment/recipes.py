"""Recipes: what `atspeed train target` trains a preset with, where no flag says otherwise.

Light to import, as the settings are.
"""

from typing import Any

# Models from scratch on some hundred thousand interactions learn them by heart: everything here is against that.
_FROM_SCRATCH: dict[str, Any] = {
    "subsequences": True,
    "stride": 20,
    "left_out": 0.2,
    "dropout": 0.2,
    "weight_decay": 0.1,
    "learning_rate": 2e-3,
    "batch_size": 32,
    "epochs": 15.0,
    "validate_users": 1000,
    "patience": 3,
}
# One vector an item, read and predicted by, is not learnt by heart by half a model.
_SPARSE: dict[str, Any] = _FROM_SCRATCH | {
    "left_out": 0.0,
    "dropout": 0.5,
    "weight_decay": 0.0,
    "learning_rate": 4e-3,
    "batch_size": 64,
    "epochs": 20.0,
    "patience": 6,
}
RECIPES: dict[str, dict[str, Any]] = {
    "small": _FROM_SCRATCH,
    # At high learning rates lists may get worse for some epochs, while the loss falls.
    "base": _FROM_SCRATCH | {"learning_rate": 1e-3, "patience": 6},
    "sparse": _SPARSE,
}


def with_recipe(base: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, and what the recipe of the base says of others; nothing for a base without one.

    A recipe's patience goes with its validation: without users there is nothing to wait for.
    """
    recipe = RECIPES.get(base, {})
    if given.get("validate_users") == 0:
        recipe = {name: value for name, value in recipe.items() if name != "patience"}
    return recipe | given
