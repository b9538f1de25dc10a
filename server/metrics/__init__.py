"""Observability: Prometheus metrics, traces, logs, and the lag of the event loop."""
