"""What may come next, and guesses: catalog, trie, prompt, token tree, beam expansion.

The lowest floor. It imports numpy and torch and nothing above it, so that it runs in a notebook, in training and on a bare GPU machine.
"""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
