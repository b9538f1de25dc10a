"""What obstore says of a failure, as logs and people are told it.

Invariant: nothing behind a question mark is told, because the query of a URL may hold a signature.
"""

from drafting.errors import first_line


def told(error: Exception) -> str:
    """The first line of the message, without a full stop, and what helps where it means that a URL of HTTP is not allowed."""
    line = " ".join(word.partition("?")[0] for word in first_line(error).split()).rstrip(".")
    return f"{line} (a URL of http:// needs AWS_ALLOW_HTTP=true)" if "builder error" in line else line
