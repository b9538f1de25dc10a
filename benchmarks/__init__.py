"""The workshop: what measures, loads and checks the server. Only tests and the deployment's checks import it."""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
