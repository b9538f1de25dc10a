"""From a request for a list to the answer: the service that the routes call."""
