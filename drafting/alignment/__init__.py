"""Training of targets and drafts for generative retrieval: interaction data, samples, fine-tuning, alignment of drafts.

Part of the lowest floor: torch, numpy and transformers only, so that `accelerate launch` can run it on a machine without a server.
"""
