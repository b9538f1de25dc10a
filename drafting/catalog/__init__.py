"""The catalog: items, their identifiers and attributes, the files that they come from, and how new items are placed."""
