"""What is observed: Prometheus metrics, traces, and the lag of the event loop."""
