"""The HTTP API: the application, its middleware, problem details and routes."""
