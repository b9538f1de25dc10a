"""The rotary base of a trained model, under all names that its readers know.

transformers 5 writes base and scaling as `rope_parameters`. transformers 4, and readers that were made for its files, look for `rope_theta`
and `rope_scaling`, and where they are missing take the base for 10000 without a word: another model, and the more so the longer a history.
Invariant: both names say the same, so transformers 5 reads what it has written.
"""

from pathlib import Path

from drafting.alignment.model_config import read_config, write_config


def name_rotary_base(folder: Path) -> None:
    """Write the older names into the `config.json` of a model directory, too.

    One without rotary positions, or with a base for each kind of layer, which the older names can't say, stays as it is.
    """
    config = read_config(folder)
    rotary = config.get("rope_parameters") or {}
    if "rope_theta" not in rotary:
        return
    config["rope_theta"] = rotary["rope_theta"]
    if rotary.get("rope_type", "default") != "default":
        config["rope_scaling"] = {name: value for name, value in rotary.items() if name != "rope_theta"}
    write_config(folder, config)
