"""How rooms reach a Redis: its URL, its client, and operations that end in time."""
