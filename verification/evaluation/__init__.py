"""Evaluation on held-out users: recall and NDCG of lists, steps that a draft saves, and time."""
