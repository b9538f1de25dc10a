"""HTTP schemas of what an answer has cost: tokens, forwards and time."""

from pydantic import BaseModel, Field


class UsageAnswer(BaseModel):
    """Usage of the list: tokens, forwards and drafts."""

    prompt_tokens: int
    cached_tokens: int
    target_forwards: int = Field(description="Forwards of the target model that the list took part in.")
    draft_forwards: int = Field(description="Forwards of the draft model that it took part in.")
    accepted_steps: int = Field(description="Levels that the target accepted from a draft, each one forward saved.")
    drafted_nodes: int = Field(description="Prefixes that were drafted for the target to verify.")
    plan: str = Field(description="What was drafted: the server's fixed plan, or `auto:` and what the planner made of it.")
    used_by: dict[str, int] | None = Field(
        default=None,
        description="Drafted prefixes that the target came to keep, by what drafted them: `beam`, `children`, `items` or `last`, if any.",
    )
    rounds: int | None = Field(
        default=None,
        description="Searches that a list with `diversity` took, one after the other, because the first found too few values; left out "
        "where one was enough.",
    )
    thought_tokens: int | None = Field(
        default=None, description="Tokens of text that the model wrote before the list, a forward each; left out where it wrote none."
    )
    candidates: int | None = Field(
        default=None,
        description="Items that the model scored because they were named: by the neighbour model for a blended list, or by a request for "
        "scores; left out where there were none.",
    )


class TimingAnswer(BaseModel):
    """Where the time went, milliseconds."""

    history: float = Field(description="Reading the stored history, and making the prompt.")
    queue: float = Field(description="Waiting for the engine.")
    engine: float = Field(description="In the engine.")
    total: float = Field(description="From the parsed request to the answer.")
