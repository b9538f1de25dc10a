"""Key/value slots: who owns which, and the prefixes that later requests read again."""
