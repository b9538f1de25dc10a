"""Beam search over token trees: the tree, the beam expansion, and what prefixes are ranked by."""
