"""Verification of drafts: what the target keeps of the drafted levels, strictly or relaxed."""
