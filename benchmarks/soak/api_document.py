"""The server's own OpenAPI document, as a judge of its answers.

Invariant: an answer passes only if the document of the very server that gave it names its status, its content type and the schema of its
body for that operation.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

_LONGEST_QUOTE = 200
# Statuses that the connection or the URL decides, before any operation is chosen: the document's `default` may stand for these alone.
_OF_ANY_ROUTE = frozenset({400, 405, 408, 431, 503})


class ApiDocument:
    """The operations of a document, and which answers each may give."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components = document.get("components", {})
        # Literal paths before templates: `/v1/catalogs/rollback` is no version.
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path, operations)
            for path, operations in sorted(document["paths"].items(), key=lambda entry: entry[0].count("{"))
        ]
        self._validators: dict[tuple[str, str, int, str], Validator] = {}

    def complaint(self, response: httpx.Response) -> str | None:
        """A sentence about what the document does not say of an answer; None if it says all of it."""
        method, path = response.request.method, urlsplit(str(response.request.url)).path
        found = self._operation(method.lower(), path)
        if found is None:
            return f"{method} {path} is not documented."
        template, operation = found
        what = f"{method} {template} answered {response.status_code}"
        responses = operation["responses"]
        documented = responses.get(str(response.status_code), responses.get("default") if response.status_code in _OF_ANY_ROUTE else None)
        if documented is None:
            return f"{what}, which is not documented: {_quote(response)}"
        content = documented.get("content", {})
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        if not content and not response.content:
            return None
        if media_type not in content:
            return f"{what} with the content type {media_type or 'of no name'}, which is not documented."
        if not media_type.endswith("json"):
            return None
        validator = self._validator(template, method, response.status_code, media_type, content[media_type].get("schema", {}))
        try:
            wrong = next(validator.iter_errors(response.json()), None)
        except ValueError:
            return f"{what} with a body that is no JSON: {_quote(response)}"
        return None if wrong is None else f"{what} with a body that its schema does not allow, {wrong.message[:_LONGEST_QUOTE]}"

    def _operation(self, method: str, path: str) -> tuple[str, Mapping[str, Any]] | None:
        for pattern, template, operations in self._paths:
            if pattern.fullmatch(path) and method in operations:
                return template, operations[method]
        return None

    def _validator(self, template: str, method: str, status: int, media_type: str, schema: Mapping[str, Any]) -> Validator:
        key = (template, method, status, media_type)
        if key not in self._validators:
            # References of the document start at its root, which `components` is put into.
            self._validators[key] = Draft202012Validator({**schema, "components": self._components})
        return self._validators[key]


def _quote(response: httpx.Response) -> str:
    return response.text[:_LONGEST_QUOTE]
