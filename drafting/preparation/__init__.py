"""From raw interactions, items and users in files of any common form to a data directory."""
