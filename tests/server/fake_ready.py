"""What an engine says that is ready, where no test depends on it."""

from server.messages import Ready
from verification.result import Precision

READY = Ready(
    model="tiny",
    catalog_version="v1",
    max_items=5,
    total_slots=10,
    drafts=True,
    identifier_length=4,
    forward_seconds=0.001,
    token_seconds=0.0001,
    step_tokens=1000,
    precision=Precision("float32", True),
)
