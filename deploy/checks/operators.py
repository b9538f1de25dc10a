"""Objects of operators (Prometheus, KEDA, Gateway API, Envoy Gateway) against the fields that `operators.yaml` lists.

Invariant: a field that is not listed is a complaint. Reason: an API server drops a field that it does not know, and what was to be
retried, scaled or routed silently is not.
"""

from pathlib import Path
from typing import Any

import jsonschema
import yaml

_FILE = yaml.safe_load(Path(__file__).with_name("operators.yaml").read_text())
KINDS = frozenset(_FILE["kinds"])


def schema(kind: str) -> dict[str, Any]:
    """The schema of a whole object. Raises KeyError for a kind that is not listed."""
    known = _FILE["kinds"][kind]
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": known["apiVersion"]},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/definitions/metadata"},
            "spec": {"type": "object", "additionalProperties": False} | known["spec"],
        },
        "definitions": _FILE["definitions"],
    }


def complaints(part: dict[str, Any]) -> list[str]:
    """The mistakes in an object of a listed kind, each with its path."""
    errors = jsonschema.Draft7Validator(schema(part["kind"])).iter_errors(part)
    return [f"{'.'.join(map(str, error.absolute_path)) or part['kind']}: {error.message}" for error in errors]
