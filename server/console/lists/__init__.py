"""Pages of one list: trying it, and why it is as it is."""
