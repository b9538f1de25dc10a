"""`make fleet-check`: servers behind Envoy on one Redis with Sentinel, told random things while they and the Redis master are killed.

Invariant: what is judged is what clients saw, beside the log that the control store holds at the end, and never what servers say of
themselves while it happens.
"""
