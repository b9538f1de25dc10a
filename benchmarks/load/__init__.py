"""`atspeed-bench load`, `standard` and `swaps`: an open-loop load generator, and what it says of the server that it loaded.

Invariant: requests are sent when they are due, independent of the answers to those before them, and every time counts from the moment at
which a request was due. A generator that waits for answers before it asks again slows down with the server and hides the queue that users
stand in.
"""
