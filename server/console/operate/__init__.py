"""The page for operators: figures, versions of the catalog, filters, new items, events."""
