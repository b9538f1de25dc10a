"""Settings of an evaluation, light to import: the options of `atspeed evaluate` are made of these fields."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from drafting.beam.rule import MOST_SEEDS, SERVED_BEAM_WIDTH, WIDEST_BEAM, NormaliseName, Verification

# Baselines by the name that a flag has, with the name in tables.
BASELINES = {
    "popular": "most popular",
    "co-occurrence": "co-occurrence",
    "knn": "item-kNN",
    "ease": "EASE",
    "sasrec": "SASRec",
    "gru4rec": "GRU4Rec",
}
# Those that are computed at once; the others are trained for minutes.
CLOSED_FORMS = ("popular", "co-occurrence", "knn", "ease")


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an evaluation.

    Attributes:
        ks: list lengths.
        modes: verification modes of drafts.
        beam_widths: prefixes that a strict search keeps at each level but the last, in place of `beam_width`; none for `beam_width`.
        baselines: baselines in the same table, of `BASELINES`.
        blend: weights of a neighbour model, of which the best of validation users is taken.
        most_users: maximum number of users; None for all.
        host: "vllm" or "transformers".
        dtype, quantization, exact, threads, kv_memory_gib, normalise: as of `Recommender.load`.
    """

    ks: tuple[int, ...] = (1, 3, 5, 10, 20)
    modes: tuple[Verification, ...] = (Verification.STRICT,)
    beam_width: Annotated[
        int,
        Meta(
            ge=1,
            le=WIDEST_BEAM,
            description="Prefixes that a strict search keeps, k where that is more, and no more than the plan drafts; 1 for the paper's k.",
        ),
    ] = SERVED_BEAM_WIDTH
    beam_widths: tuple[int, ...] = ()
    plan: Annotated[str, Meta(description="What to draft: beam:N, trie or beam:N+children.")] = "beam:40"
    part: Annotated[str, Meta(description="Part of the split with the labels: test or valid.")] = "test"
    most_users: int | None = None
    keep_seen: Annotated[
        bool, Meta(description="Keep what users have met in their lists; otherwise all lists, of target and baselines, leave it out.")
    ] = False
    exhaustive: Annotated[
        bool,
        Meta(
            description="Rank the whole catalog for every user by the target's scores of all items, too: true ranks, NDCG and AUC without "
            "a beam's loss. Each user takes a forward of every prefix of the catalog."
        ),
    ] = False
    baselines: tuple[str, ...] = CLOSED_FORMS
    networks: Annotated[int, Meta(ge=1, description="Networks of each neural baseline, one a seed; its figures are their means.")] = 1
    blend: tuple[float, ...] = ()
    timed: Annotated[int, Meta(ge=0, description="Users that are timed one request at a time; 0 for none.")] = 200
    generated: Annotated[int, Meta(ge=0, description="Of those, users that transformers' generate is timed on.")] = 30
    temperature: Annotated[float, Meta(ge=0.01, le=100, description="Temperature of the modes that sample.")] = 1.0
    seed: Annotated[int, Meta(ge=0, le=MOST_SEEDS - 1, description="Seed of the modes that sample.")] = 0
    host: str = "transformers"
    dtype: str = "auto"
    quantization: Literal["fp8", "int8"] | None = None
    exact: bool = False
    threads: int | None = None
    kv_memory_gib: float = 0.5
    normalise: NormaliseName = "auto"
