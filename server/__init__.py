"""Who asks, and what they get: the HTTP API, histories, the scheduler, the engine process, metrics and the command line."""
