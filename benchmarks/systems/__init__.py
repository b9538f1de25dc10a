"""Honest timings: this engine and its rivals on one checkpoint, one machine, one interleaved run."""
