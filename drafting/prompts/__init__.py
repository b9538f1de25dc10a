"""Prompts: the forms of `prompt.json`, windows of histories, and the builder, token for token as the tokenizer reads the text."""
