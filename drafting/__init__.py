"""The lowest floor: catalog, trie (constrained decoding), prompt, token tree, beam expansion, draft plans, training.

It imports numpy and torch and nothing above it, so that it runs in a notebook, in training and on a bare GPU machine.
"""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
