"""`atspeed-bench models`: every family of transformers, as tiny random checkpoints, against transformers' own constrained `generate`.

Invariant: a cell (a variant of a family on one host) is *equal* or *refused in a sentence*; anything else fails the run. Each cell has a
process of its own, so that a crash or a hang is a result of its cell and of no other.
"""
