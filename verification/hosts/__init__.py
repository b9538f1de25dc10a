"""Hosts: vLLM and transformers, which load the weights of a model and run its forwards with tree attention."""
