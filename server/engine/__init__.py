"""The engine process, and its client and its supervisor in the API process."""
