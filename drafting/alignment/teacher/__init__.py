"""Teacher data: the lists and distributions of the target that a draft is aligned to."""
