"""The trie of item identifiers in CSR form, and the sets of items and nodes that constrained decoding may use."""
