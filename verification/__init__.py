"""The middle floor: model hosts, tree attention, key/value slots with prefix caching, and the engine (speculative beam search).

It imports `drafting`, numpy and torch; only `verification/hosts/vllm*.py` knows vLLM, and nothing here knows HTTP, Redis
or metrics.
"""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
