"""Draft plans of speculative decoding: fixed plans, and the planner that learns what to draft at each level."""
