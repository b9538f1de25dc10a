"""What msgspec raises of bytes that it can't decode, as JSON or MessagePack.

Invariant: a reader of bytes that others wrote catches all of it, so a damaged file ends in a sentence and never in a traceback.
"""

import msgspec

# It checks UTF-8 only in the texts that it keeps, by Python's own codec, whose error it hands on; and it descends into what is nested by
# Python's own limit of recursion. Neither error is one of its own.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
