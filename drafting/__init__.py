"""What may come next, and guesses: catalog, trie, prompt, token tree, beam expansion.

The lowest floor. It imports numpy and torch and nothing above it, so that it runs in a notebook, in training and on a bare GPU machine.
"""
