"""Hosts load a model's weights and run forwards with our attention; nothing else differs between them."""
