"""Teacher data: lists and distributions of the target, from which a draft is trained."""
