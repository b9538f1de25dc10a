"""Versions of the catalog: their store, how they are built, grown and switched, and the named filters."""
