"""The catalog of generative retrieval: items, their semantic ids (identifiers) and attributes, file formats, and placing of new items."""
