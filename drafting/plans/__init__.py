"""What to draft at each level of a search: fixed plans, and the planner that learns which one pays."""
