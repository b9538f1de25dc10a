"""Baselines without a generative model, on the same users, candidates and rules as the target: what its lists must beat.

Invariant: a baseline's settings are chosen on the validation part, and it then learns from all interactions before the held-out ones.
"""
