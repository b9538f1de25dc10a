"""The first minutes on a GPU: `make gpu-day` measures what matters most first, and keeps what it has measured whatever happens."""
