"""Embeddings of items, from which identifiers are made: from interactions, from texts, or from both."""
