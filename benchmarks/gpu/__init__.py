"""The GPU runs: kernels, shapes of served models, and a target and draft trained and measured on one device."""
