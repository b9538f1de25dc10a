"""HTTP schemas of the server's own state: whether it serves, and what."""

from pydantic import BaseModel, Field

from drafting.beam.rule import Normalisation


class StatusAnswer(BaseModel):
    """Status of the server."""

    status: str = Field(examples=["ready"])
    engine: str = Field(examples=["ready"])


class VersionAnswer(BaseModel):
    """Versions of server, model and catalog."""

    version: str
    model: str
    engine: str = Field(examples=["transformers"])
    precision: str | None = Field(description="As in a list; null until the model is loaded.", examples=["float32"])
    exact: bool | None = Field(description="As in a strict list; null until the model is loaded.")
    normalised: Normalisation | None = Field(
        description="What scores are normalised over where a request does not say it; null until the model is loaded."
    )
    catalog_version: str
