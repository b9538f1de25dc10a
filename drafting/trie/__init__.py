"""The trie of identifiers in CSR form, and the sets of items and nodes that constrained decoding may use."""
