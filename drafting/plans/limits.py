"""Limits of plans, for code that checks options without importing numpy."""

# Items of a retriever, in one plan.
MOST_ITEMS = 256
