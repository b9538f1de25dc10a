"""The query parameter of changes that wait until other replicas have them."""

from typing import Annotated, Literal

from fastapi import Query

WaitQuery = Annotated[
    Literal["all"] | None,
    Query(description="`all`: answer when every replica has the change; 503 if one has not after 10 s, although it is stored then."),
]
