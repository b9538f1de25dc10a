"""Checks that run the deployment for real, each a script of its own: `make deploy-check` runs them all."""
