"""Evaluation on held-out users: how good lists are, how many steps a draft saves, and how much time."""
