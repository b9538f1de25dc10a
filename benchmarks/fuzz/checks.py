"""What an answer must be beside what schemathesis checks itself."""

from typing import Any

import schemathesis

# Statuses that the connection or the URL decides, before any operation is chosen: the document's `default` may stand for these alone.
OF_ANY_ROUTE = frozenset({400, 405, 408, 431})


@schemathesis.check
def status_is_named(context: schemathesis.CheckContext, response: schemathesis.Response, case: "schemathesis.Case[Any]") -> None:
    """The operation names the status by its number; methods that it does not have are for schemathesis' own checks."""
    if case.method.upper() != case.operation.method.upper():
        return
    named = case.operation.definition.raw["responses"]
    if str(response.status_code) not in named and response.status_code not in OF_ANY_ROUTE:
        raise AssertionError(f"The operation names {', '.join(named)}, not {response.status_code}.")
