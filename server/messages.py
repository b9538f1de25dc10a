"""The messages between the API process and the engine process, as msgspec structs in MessagePack.

Invariant: a message holds plain numbers and strings, items are catalog indices, and times are seconds. Both processes load the same
catalog file and `Ready` carries its version, so an index means the same item on both sides; and `deadline` is on the monotonic clock,
which all processes of one Linux machine share, so no time is lost in translation. A catalog is named by its handle
(`server.catalogs.served.ServedCatalog.handle`), in requests as well.
"""

from typing import Any

import msgspec

from drafting.beam.rule import Normalisation
from server.submit import Submit
from verification.result import BeamResult, Precision, StepReport


class PutFilter(msgspec.Struct, frozen=True, tag=True):
    """Give a name to a set of a catalog's items: `drafting.trie.item_set.ItemSet.bits`."""

    catalog: str
    name: str
    bits: bytes


class DropFilter(msgspec.Struct, frozen=True, tag=True):
    """Forget a filter of a catalog."""

    catalog: str
    name: str


class LoadCatalog(msgspec.Struct, frozen=True, tag=True):
    """Get another catalog ready beside those that are served; answered by `CatalogLoaded`."""

    handle: str
    path: str


class DropCatalog(msgspec.Struct, frozen=True, tag=True):
    """Forget a catalog that no request names any more."""

    handle: str


class PromptFiles(msgspec.Struct):
    """What prompts are built with; see `server.engine.prompts`.

    Attributes:
        tokenizer: path of the tokenizer, a file of the library tokenizers.
        digest: digest of all that prompts are built with.
        form: contents of `prompt.json`.
        bos_token_id, chat_template, special_tokens, splits_special: as `drafting.prompts.tokenizer.PromptTokenizer` has them.
        start_token: the token that ends every prompt for a decoder; None for a causal model.
    """

    tokenizer: str
    digest: str
    form: dict[str, Any]
    bos_token_id: int | None
    chat_template: str | None
    special_tokens: dict[str, str | list[str]]
    splits_special: bool
    start_token: int | None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Cancel a request: its client no longer waits."""

    request_id: str


class ForgetUser(msgspec.Struct, frozen=True, tag=True):
    """Keep nothing of what was computed for a user, nor of what those of their requests compute that wait or run when this comes."""

    user: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Stop after the running step; what still waits is abandoned."""


class PlacesLimit(msgspec.Struct, frozen=True):
    """Places for requests that take many steps, so that they leave the others enough; one such request may always run.

    Attributes:
        requests: the most requests that write text and run at a time, and the most with caps that run beside them.
        slots: the most KV slots that requests with a text may need together, counted with the longest text that each may write.
    """

    requests: int
    slots: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and requests are welcome.

    Attributes:
        model: name of the target.
        catalog_version: version of the contents of the catalog that it has loaded.
        max_items: the most items of a history that the model reads; requests bring one more, as it matters whether there are more.
        total_slots: KV slots of the engine.
        drafts: True if the engine has a draft model.
        identifier_length: tokens of an item's identifier.
        forward_seconds, token_seconds: seconds of a forward of the target: a fixed part, and a part for each token of a full step.
        step_tokens: tokens that may share a step.
        precision: numbers that the target's lists are computed in, and whether they are exact.
        normalised: what scores are normalised over where a request does not say it.
        places: limit of requests that write text before their lists; as many with caps may run beside them.
        longest_step_seconds: foreseen duration of the longest step that the options allow.
        catalog_handle: of the catalog that it has loaded.
        text_tokens: the most tokens of text that the model may write before a list; 0 if it can't.
        end_tokens: tokens between a text and its list.
        widest_beam: the widest beam that the plan drafts for; None for any.
        drafted_items: the most items of a neighbour model that the plan drafts.
        prompts: what prompts are built with.
    """

    model: str
    catalog_version: str
    max_items: int
    total_slots: int
    drafts: bool
    identifier_length: int
    forward_seconds: float
    token_seconds: float
    step_tokens: int
    precision: Precision
    normalised: Normalisation
    places: PlacesLimit
    prompts: PromptFiles
    catalog_handle: str = ""
    longest_step_seconds: float = 0.0
    text_tokens: int = 0
    end_tokens: int = 0
    widest_beam: int | None = None
    drafted_items: int = 0


class Alive(msgspec.Struct, frozen=True, tag=True):
    """A sign of life of an engine that has nothing else to say; `doing` is what it does now, or begins to do."""

    doing: str


class CatalogLoaded(msgspec.Struct, frozen=True, tag=True):
    """The answer to `LoadCatalog`: requests may name the catalog from now on, or `sentence` says why they can't."""

    handle: str
    sentence: str | None = None


class StartFailure(msgspec.Struct, frozen=True, tag=True):
    """The engine can't start; `sentence` says why. It is final for a server that was never ready, which its operator is just starting.

    Attributes:
        is_catalog: True if the catalog is why, so that with another one it could.
    """

    sentence: str
    is_catalog: bool = False


class FinishedList(msgspec.Struct, frozen=True, array_like=True):
    """One finished list.

    Attributes:
        queue_seconds: time from the submission by the API process to the start in the engine.
        engine_seconds: time from the start in the engine to the finished list.
    """

    result: BeamResult
    queue_seconds: float
    engine_seconds: float


class FailedList(msgspec.Struct, frozen=True, array_like=True):
    """A request that has failed: `sentence` says why. Without one its deadline passed, or the model's scores were `not_finite`."""

    request_id: str
    sentence: str | None = None
    not_finite: bool = False


class StepRecord(msgspec.Struct, frozen=True, array_like=True):
    """One step of the engine.

    Attributes:
        report: without its lists, which are sent as `FinishedList`.
        ended: monotonic seconds.
        elapsed_seconds: wall clock from the end of the step before it, or of idling: the step itself, and what the engine process does
            between two.
        crowded: True if a request had to wait for a later step.
    """

    report: StepReport
    ended: float
    elapsed_seconds: float
    crowded: bool = False


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Progress of the engine since the last progress message.

    Attributes:
        used_slots: KV slots that running requests own.
        cached_slots: KV slots that hold prompts of earlier requests.
        graphs_replayed: forwards of target and draft that were replayed from a CUDA graph.
        graphs_skipped: those that fitted no graph, of models that have some.
        placed: ids of requests that took a place among those that think, or among those with caps, in the last of the steps.
    """

    finished: list[FinishedList]
    failed: list[FailedList]
    steps: list[StepRecord]
    running: int
    waiting: int
    used_slots: int
    cached_slots: int = 0
    graphs_replayed: int = 0
    graphs_skipped: int = 0
    placed: tuple[str, ...] = ()


ToEngine = Submit | Cancel | ForgetUser | Shutdown | PutFilter | DropFilter | LoadCatalog | DropCatalog
FromEngine = Alive | Ready | StartFailure | Progress | CatalogLoaded
