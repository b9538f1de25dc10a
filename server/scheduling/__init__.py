"""Continuous batching and admission: which requests are taken in, and which run in the next step."""
