"""HTTP schemas of batches: requests for many users, and their answers.

Invariant: an entry is judged alone, also by its form, so that one which makes no sense costs the others nothing.
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema

from server.schemas.body import Body, Several, examples
from server.schemas.problems import ProblemMembers
from server.schemas.recommendations import RecommendationAnswer

MAX_BATCH = 256
# The model of the batch lets anything through as an entry.
Entry = Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/RecommendationRequest"})]


class BatchRequest(Body):
    """Requests for many users."""

    model_config = examples({"requests": [{"user_id": "42", "k": 10}, {"history": ["50", "181"], "k": 5, "timeout_ms": 2000}]})

    requests: Several[Entry] = Field(
        min_length=1, max_length=MAX_BATCH, description="Each as the body of `POST /v1/recommendations`, with a timeout of its own."
    )


class EntryProblem(ProblemMembers):
    """The error of one entry, as problem details (RFC 9457)."""

    retry_after_seconds: int | None = Field(default=None, description="When asking again is worth a try; left out if it is not.")


class EntryAnswer(BaseModel):
    """The result of one entry: its list or its problem."""

    status: int = Field(description="The HTTP status that the entry would have had alone.", examples=[200])
    recommendation: RecommendationAnswer | None = Field(default=None, description="Left out where there is a problem.")
    problem: EntryProblem | None = Field(default=None, description="Left out where there is a list.")


class BatchAnswer(BaseModel):
    """The results of all entries, in the order of the request."""

    results: list[EntryAnswer]
    succeeded: int
    failed: int
