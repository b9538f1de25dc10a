"""`atspeed recommend`: lists without a server, for one user or for a file of users."""

from typing import Annotated, Literal

import typer

from drafting.beam.rule import LONGEST_LIST, MOST_SEEDS, WIDEST_BEAM, SearchRule, Tolerance, Verification
from drafting.errors import SetupError
from server.commands.options import takes_settings
from server.commands.terminal import fail, failing_on
from server.commands.values import whole_numbers, words
from server.settings import Settings

# As `server.offline.parts.Form`, which `--help` need not load.
Form = Literal["jsonl", "parquet"]


@takes_settings(
    "target",
    "catalog",
    "histories",
    "engine",
    "base",
    "draft",
    "draft_base",
    "plan",
    "verification",
    "dtype",
    "quantization",
    "exact",
    "verify_model",
    "normalise",
    "threads",
    "tensor_parallel",
    "kv_memory_gib",
    "max_beam_width",
    "neighbours",
    "blend",
)
def recommend(
    settings: Settings,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.", metavar="ID,ID,…")] = None,
    user: Annotated[str | None, typer.Option(help="A user whose history is stored.")] = None,
    users: Annotated[
        str | None,
        typer.Option(
            "--input",
            help='Users, as JSONL or parquet: {"user_id"?, "history": [id or event, …], "behaviours"?, "profile"?, "context"?, "k"?, '
            '"beam_width"?, "beam_widths"?, "exclude"?}. '
            "A file, a folder, a pattern such as users/*.parquet, or one of these at s3://…, gs://… or az://….",
            metavar="PLACE",
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(
            "--output",
            help="Lists, one a user, in the same order: a file (.parquet, else JSONL), or a folder of parts: a directory, "
            "a name that ends in /, or a URL.",
            metavar="PLACE",
            show_default="standard output",
        ),
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--output-format", help="Of the parts of a folder.", show_default="that of the users")
    ] = None,
    part_users: Annotated[int, typer.Option(help="Users of a part of a folder.", min=1, max=1_000_000)] = 1000,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Make the parts on the Ray cluster at this address; auto: the cluster of this machine or of RAY_ADDRESS, else one that is "
            "started here. Model and catalog must lie at the same path here and on all nodes, which must all see --input and --output.",
            metavar="ADDRESS|auto",
            show_default="in this process",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            help="Models on the cluster, each with --threads cores, or --tensor-parallel GPUs where there are some.",
            min=1,
            show_default="as many as fit",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Identifiers to return.", min=1, max=LONGEST_LIST)] = 10,
    beam_width: Annotated[
        int | None,
        typer.Option(
            help="Prefixes that the search keeps, at least k; not for users whose own k is larger.",
            min=1,
            max=WIDEST_BEAM,
            show_default="50, or k",
        ),
    ] = None,
    beam_widths: Annotated[
        str | None,
        typer.Option(help="Prefixes of each level but the last in its place, such as 16,64,200.", metavar="N,N,…", show_default="none"),
    ] = None,
    diversity: Annotated[
        str,
        typer.Option(
            help="The most items of a list with the same value of an attribute, such as brand=2,genre=3.",
            metavar="ATTRIBUTE=N,…",
            show_default="any number",
        ),
    ] = "",
    tolerance: Annotated[
        str,
        typer.Option(
            help="How far a strict list may be from the exact one, for fewer forwards: items=1 lets so many of its identifiers be others, "
            "mass=0.05 lets those of so much of its probability be missing.",
            metavar="items=N|mass=E",
            show_default="not at all",
        ),
    ] = "",
    exclude: Annotated[str, typer.Option(help="Item ids that must not be returned.", metavar="ID,ID,…")] = "",
    exclude_history: Annotated[bool, typer.Option("--exclude-history", help="Don't return items of the history.")] = False,
    strict_ids: Annotated[
        bool, typer.Option("--strict-ids", help="Refuse users with items that the catalog does not have; they are passed over otherwise.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Of a sampled list; counts up from user to user of a file.", min=0, max=MOST_SEEDS - 1, show_default="random"),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of a sampled list.", min=0.01, max=100, show_default="1")] = None,
    think: Annotated[
        int,
        typer.Option(
            help="Let the model write text before each list, of so many tokens at most.", min=0, metavar="TOKENS", show_default="no text"
        ),
    ] = 0,
) -> None:
    """Recommend without a server: for one history, one stored user, or a file of users.

    Examples:

    atspeed recommend --target models/beauty --catalog beauty.index.json --history 12,7,99 -k 5

    atspeed recommend --target models/beauty --catalog beauty.index.json --input users.jsonl --output recs.jsonl

    atspeed recommend --target models/beauty --catalog beauty.index.json --input 's3://shop/users/*.parquet' --output s3://shop/l --ray auto

    A run over files that is interrupted goes on where it was when the same command is given again.
    """
    if sum(source is not None for source in (history, user, users)) != 1:
        fail("Give exactly one of --history, --user and --input.")
    if ray_workers is not None and ray is None:
        fail("--ray-workers are workers of a Ray cluster: say which with --ray.")
    for_files = {"--output": place, "--output-format": form, "--ray": ray}
    if users is None and (given := next((name for name, value in for_files.items() if value is not None), None)):
        fail(f"{given} is for the users of --input: the list of one history or one user is printed.")
    # numpy and the model libraries take a while to import, which `--help` and a typing mistake need not wait for.
    from verification.lengths import check_lengths

    widths = None if beam_widths is None else whole_numbers("--beam-widths", beam_widths, repeats=True)
    if widths is not None and beam_width is not None:
        fail("Give either --beam-width or --beam-widths, not both.")
    widest = max(widths) if widths else beam_width or k
    try:
        check_lengths(k, widest, widths, settings.verification)
    except ValueError as error:
        fail(str(error) if widths else f"--beam-width must be at least --k, got {beam_width} and {k}.")
    # What is asked for here need not be asked for twice; lines of a file may ask for more.
    settings = settings.model_copy(update={"max_beam_width": max(settings.max_beam_width, widest)})
    with failing_on(ValueError):
        rule = SearchRule.choose(settings.verification, seed, temperature)
    allowed = _tolerance(tolerance)
    if allowed is not None and rule.verification is not Verification.STRICT:
        fail("Only strict lists have a tolerance: leave --tolerance out, or choose strict verification.")
    from server.lists.service import RELAXED_NOTE, UNUSED_TOLERANCE_NOTE
    from server.offline.cluster import Cluster
    from server.offline.questions import Defaults
    from server.offline.run import Output, recommend_one, recommend_users

    if rule.verification is Verification.RELAXED:
        typer.echo(RELAXED_NOTE, err=True)
    if allowed is not None and (diversity or settings.neighbours is not None):
        typer.echo(UNUSED_TOLERANCE_NOTE, err=True)
    defaults = Defaults(
        k,
        beam_width,
        words(exclude),
        exclude_history,
        rule,
        seed_is_drawn=seed is None,
        think=think,
        strict_ids=strict_ids,
        beam_widths=widths,
        diversity=_diversity(diversity),
        tolerance=allowed,
    )
    with failing_on(SetupError):
        if users is not None:
            cluster = None if ray is None else Cluster(ray, ray_workers)
            recommend_users(settings, defaults, users, Output(place, form, part_users, cluster))
        else:
            recommend_one(settings, defaults, words(history or ""), user, as_json)


def _diversity(text: str) -> dict[str, int]:
    caps = [part.rpartition("=") for part in words(text)]
    names = [name for name, _, _ in caps]
    if not all(name and most.isdecimal() and int(most) for name, _, most in caps) or len(set(names)) < len(names):
        fail(f"--diversity takes attributes, each with a whole number from 1 on, such as brand=2,genre=3, got {text!r}.")
    return {name: int(most) for name, _, most in caps}


def _tolerance(text: str) -> Tolerance | None:
    if not text:
        return None
    name, _, bound = text.partition("=")
    try:
        match name.strip():
            case "items":
                return Tolerance(items=int(bound))
            case "mass":
                return Tolerance(mass=float(bound))
    except ValueError:
        pass
    fail(f"--tolerance takes items=N, a whole number from 0 on, or mass=E, a share from 0 up to 1, got {text!r}.")
