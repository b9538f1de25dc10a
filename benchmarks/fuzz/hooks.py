"""All that schemathesis loads from this project, which registers itself with it."""

from benchmarks.fuzz import checks, revisions, uploads

__all__ = ["checks", "revisions", "uploads"]
