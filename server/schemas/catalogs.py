"""What goes over HTTP about versions of the catalog."""

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.recommendations import Body


class CatalogPath(Body):
    """A catalog that is a file already."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "2026-11-24.parquet"}]})

    path: str = Field(min_length=1, max_length=4096, description="Below the server's directory of catalogs.")


class ActivationBody(Body):
    """Who changes what is served."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "nightly import"}]})

    by: str = Field(min_length=1, max_length=200, description="A person or a job, for the history.")


class VersionBuilt(BaseModel):
    """A version that can be activated."""

    version: str
    content: str = Field(description="A hash of what is in it.")
    items: int
    identifiers: int
    identifier_length: int


class ActivationAnswer(BaseModel):
    """One entry of the history."""

    version: str
    by: str
    at: float = Field(description="Seconds since 1970.")


class CatalogsAnswer(BaseModel):
    """All versions, and how they came to be served."""

    active: str
    versions: list[str]
    history: list[ActivationAnswer] = Field(description="Oldest first.")
