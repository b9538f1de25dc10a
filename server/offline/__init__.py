"""Lists without a server: a file of questions in, JSON lines out."""
