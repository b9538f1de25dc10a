"""`atspeed-bench fuzz`: thousands of requests made from the server's own OpenAPI document, by schemathesis.

Invariant: any answer but a documented one, and any 5xx of a server whose engine lives, fails the run, and the request is printed as a
`curl` to paste. The same seed makes the same requests.
"""
