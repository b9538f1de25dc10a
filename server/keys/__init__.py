"""Keys: who may do what, and how much of it. Nothing here knows HTTP."""
