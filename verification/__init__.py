"""The middle floor: model hosts, tree attention, key/value slots with prefix caching, and the engine (speculative beam search).

It imports `drafting` and nothing above it: no HTTP, no Redis, no metrics. What serves needs numpy, torch and transformers, and only
`verification/hosts/vllm*.py` imports vLLM.
"""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
