"""What runs inside a rival's process: one file a library, each with a function `load`; `serve.py` is the loop around it."""
