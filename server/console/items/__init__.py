"""The page of the catalog's items."""
