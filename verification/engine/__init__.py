"""The speculative beam engine: one step for all running searches, by one forward of the target."""
