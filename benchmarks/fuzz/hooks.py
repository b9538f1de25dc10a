"""The hooks that schemathesis loads from this project: importing the modules below registers them."""

from benchmarks.fuzz import checks, revisions, uploads

__all__ = ["checks", "revisions", "uploads"]
