"""What goes over HTTP in a batch.

Invariant: an entry is judged alone, also by its form, so the body's own model lets anything through as an entry.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from server.schemas.recommendations import Body, RecommendationAnswer

MAX_BATCH = 256

Entry = Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/RecommendationRequest"})]


class BatchRequest(Body):
    """Requests for many users."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"requests": [{"user_id": "42", "k": 10}, {"history": ["50", "181"], "k": 5, "timeout_ms": 2000}]},
            ]
        }
    )

    requests: list[Entry] = Field(
        min_length=1, max_length=MAX_BATCH, description="Each as the body of `POST /v1/recommendations`, with a timeout of its own."
    )


class EntryProblem(BaseModel):
    """What went wrong with one entry: an error as RFC 9457 has it."""

    type: str = Field(examples=["urn:atspeed:unknown-user"])
    title: str = Field(examples=["Unknown user"])
    status: int = Field(examples=[404])
    detail: str
    retry_after_seconds: int | None = Field(default=None, description="When asking again is worth a try; left out if it is not.")


class EntryAnswer(BaseModel):
    """What became of one entry: its list or its problem."""

    status: int = Field(description="The HTTP status that the entry would have had alone.", examples=[200])
    recommendation: RecommendationAnswer | None = Field(default=None, description="Left out where there is a problem.")
    problem: EntryProblem | None = Field(default=None, description="Left out where there is a list.")


class BatchAnswer(BaseModel):
    """What became of each entry, in the order of the request."""

    results: list[EntryAnswer]
    succeeded: int
    failed: int
