"""Writes the chart's `settings`, in values.schema.json, from the server's own settings.

Invariant: the chart accepts exactly what `atspeed serve` accepts: a flag that is new, gone or has other limits fails
`tests/deploy/test_chart.py` until this has run again. Reason: a chart that is copied by hand learns of a flag a year later.

Run:  python deploy/helm/settings_schema.py
"""

import json
from pathlib import Path
from typing import Any

import typer

from server.settings import Settings

SCHEMA = Path(__file__).parent / "atspeed" / "values.schema.json"
# The chart sets these itself, from `model`, `histories`, `keys`, `containerPort` and `operatePort`; TLS is the gateway's.
OWN = frozenset({"target", "catalog", "draft", "histories", "keys", "host", "port", "operate_port", "tls_cert", "tls_key"})
# What a URL must not hold where everybody who may read the pod can read it: Secrets are for that.
PASSWORD = "://[^/@]*:[^/@]*@|[?&]sentinel_password="
# The same in `extraEnv`, where Kubernetes puts another variable, such as one of a Secret, in the place of `$(NAME)`.
PASSWORD_OF_A_VARIABLE = r"://[^/@]*:(\$[^(/@]|[^$/@])[^/@]*@|[?&]sentinel_password=(\$[^(]|[^$])"


def settings_schema() -> dict[str, Any]:
    """JSON schemas by the name of the setting."""
    schema = Settings.model_json_schema()
    settings = {name: _plain(field, schema.get("$defs", {})) for name, field in schema["properties"].items() if name not in OWN}
    settings["control"]["not"] = {"pattern": PASSWORD}
    return settings


def _plain(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A field's schema without what only pydantic needs. Null is left out: who wants the default leaves out the value."""
    rules = dict(field)
    for alternative in rules.pop("anyOf", []):
        rules |= alternative if alternative != {"type": "null"} else {}
    if reference := rules.pop("$ref", None):
        definition = definitions[reference.rpartition("/")[2]]
        rules |= {key: definition[key] for key in ("type", "enum")}
    # A default would have to be true of the image that runs, which may be another version than this chart.
    return {key: value for key, value in sorted(rules.items()) if key not in ("title", "default", "format")}


def updated(text: str) -> str:
    """The text of values.schema.json with its settings renewed, and what no variable may hold."""
    schema = json.loads(text)
    schema["properties"]["settings"]["properties"] = settings_schema()
    schema["properties"]["extraEnv"]["items"]["not"]["properties"]["value"]["pattern"] = PASSWORD_OF_A_VARIABLE
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Renew the schemas of settings in values.schema.json; takes no options."""
    SCHEMA.write_text(updated(SCHEMA.read_text()))


if __name__ == "__main__":
    typer.run(main)
