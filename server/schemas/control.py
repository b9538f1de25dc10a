"""The JSON of `/v1/control`."""

from typing import Literal

from pydantic import BaseModel, Field


class ReplicaAnswer(BaseModel):
    """One replica that lives."""

    name: str = Field(examples=["recommender-7d9f-x2x4q/1/9f86d081"])
    generation: str = Field(description="Of the state that it has applied; empty before it has applied any.")
    revision: int = Field(description="The last write that it has applied.", examples=[42])
    behind_seconds: float = Field(
        description="Seconds since when it has not applied what is written, as far as the replica that answers knows.", examples=[0.0]
    )
    ready: bool = Field(description="Whether it takes requests.")
    problem: str | None = Field(description="Why it is not ready, or does not do what others have written; null if all is well.")
    started_at: float = Field(description="Seconds since 1970.")
    software: str = Field(description="Its release.", examples=["0.1.0"])
    version: str = Field(description="The version of the catalog that it serves.")


class ControlAnswer(BaseModel):
    """What replicas agree on, as one of them sees it."""

    replica: str = Field(description="The name of the one that answers.")
    store: Literal["ok", "away", "lost"] = Field(
        description="`away`: the control store does not answer, so nothing can be changed; `lost`: it has lost its state, which this "
        "replica still has: make a backup and restore it."
    )
    away_since: float | None = Field(description="Seconds since 1970; null unless the store is away.")
    generation: str = Field(description="Random name of the state, another one after each restore.")
    revision: int = Field(description="The last write that this replica has read.", examples=[42])
    replicas: list[ReplicaAnswer] = Field(description="All that live, by name; only this one while the store is away.")


class ControlRestored(BaseModel):
    """A state that was restored."""

    generation: str
    revision: int = Field(description="Above that of the backup, and above that of what was there.", examples=[43])
