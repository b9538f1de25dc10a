"""vLLM's CUDA build, read where it cannot run: whether its sources have what the vLLM host relies on."""
