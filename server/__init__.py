"""Who asks, and what they get: the HTTP API, histories, the scheduler, the engine process, metrics and the command line."""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
