"""What the bodies of all requests have in common: ids, names, lists, and the refusal of unknown fields.

Invariant: every field has a bound by its type, and a body of nothing but mistakes costs no more than one mistake.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
# The answer tells one mistake; looking for all in a body of nothing else would take a million times as long.
Element = TypeVar("Element")
Several = Annotated[list[Element], Field(fail_fast=True)]


def examples(*bodies: JsonDict) -> ConfigDict:
    """Configure a model with the examples that the OpenAPI page shows."""
    return ConfigDict(json_schema_extra={"examples": [*bodies]})


class Body(BaseModel):
    """A request body: unknown fields are mistakes, and numbers are numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_field(cls, body: Any) -> Any:
        """Leave one of many unknown fields, for the sentence: an error for each would take longer than all else."""
        if not isinstance(body, dict) or len(body) <= len(cls.model_fields):
            return body
        names = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = next(name for name in body if name not in names)
        return {name: value for name, value in body.items() if name in names or name == unknown}
