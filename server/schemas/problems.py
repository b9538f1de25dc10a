"""HTTP schemas of errors: problem details (RFC 9457)."""

from pydantic import BaseModel, Field


class ProblemMembers(BaseModel):
    """Problem details of an error (RFC 9457)."""

    type: str = Field(examples=["urn:atspeed:unknown-item"])
    title: str = Field(examples=["Unknown item"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The catalog has no item 'item-9999', which the history names."])


class Problem(ProblemMembers):
    """An error (RFC 9457)."""

    instance: str | None = Field(
        default=None,
        examples=["/v1/recommendations"],
        description="The path of the request; left out where its connection was refused before it was known.",
    )
