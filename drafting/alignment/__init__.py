"""Teaching models to write identifiers: interaction data, training samples, the target's fine-tuning.

Part of the lowest floor: torch, numpy and transformers only, so that `accelerate launch` can run it on a machine without a server.
"""
