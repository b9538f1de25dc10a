"""The lowest floor: catalog, trie (constrained decoding), prompt, token tree, beam expansion, draft plans, training.

It imports nothing above it; trie, beam and plans need nothing but numpy and torch, so that they run in a notebook, in training and on a
bare GPU machine.
"""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
