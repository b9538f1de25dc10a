"""What a plan may ask for at most, for those who judge options without loading arrays."""

# Items of a retriever, in one plan.
MOST_ITEMS = 256
