"""Benchmarks, load generator and replay of recordings: `atspeed-bench`."""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
