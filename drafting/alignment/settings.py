"""Settings and metrics of training runs, as `training.json` stores them; the options of `atspeed train` are made of these fields.

Light to import: reading settings does not load a training library, which takes seconds.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from drafting.alignment.data.fit import FIT_TRAIN, FITS
from drafting.alignment.data.record import AUTO
from drafting.alignment.needs import OBJECTIVES, WITHOUT_LISTS
from drafting.errors import SetupError

LABELS = ("truth", "lists")
COMPARING = ("atspeed-s", "atspeed-r")
VOCABULARY, CHILDREN = "vocabulary", "children"
NORMALISATIONS = (VOCABULARY, CHILDREN)

_LEARNING_RATE = "Highest learning rate, reached after the warm-up and followed by a cosine schedule."
SplitName = Annotated[
    str,
    Meta(
        description="Split of a stream of interactions: leave-one-out or global-time (8:1:1); auto is the one that `atspeed prepare` "
        "was given, or leave-one-out."
    ),
]
MinItems = Annotated[int, Meta(description="Leave out users of a stream with fewer interactions.")]
LabelKind = Annotated[
    str | None,
    Meta(description="Kind of the interactions to predict, such as buy; the others are only known of users. All by default."),
]
Stride = Annotated[
    int | None,
    Meta(
        description="With subsequences and a bare prompt: new items that each further window of a long history scores, half a prompt by "
        "default; 1 gives every item its full prompt, more is faster."
    ),
]
# NumPy's generator takes no larger one.
LARGEST_SEED = 2**32 - 1


class TrainingError(SetupError):
    """A training run cannot start or cannot finish; the message is a sentence."""


class LoopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the training loop, for all models."""

    epochs: Annotated[float, Meta(description="Passes over the samples.")] = 10.0
    batch_size: Annotated[int, Meta(description="Samples per device and step.")] = 64
    learning_rate: Annotated[float, Meta(description=_LEARNING_RATE)] = 1e-3
    weight_decay: Annotated[float, Meta(description="Weight decay of AdamW.")] = 0.01
    warmup_share: Annotated[float, Meta(description="Share of all steps during which the learning rate rises.")] = 0.05
    max_gradient_norm: Annotated[float, Meta(description="Norm to which longer gradients are clipped.")] = 1.0
    precision: Annotated[str, Meta(description="float32 or bfloat16 arithmetic; weights are float32 during training.")] = "float32"
    checkpoint_steps: Annotated[int, Meta(description="Steps between checkpoints: the most that an interruption loses.")] = 200
    seed: Annotated[int, Meta(ge=0, le=LARGEST_SEED, description="Seed of random weights, of the order of the samples and of dropout.")] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise TrainingError(f"seed must be from 0 to {LARGEST_SEED}, got {self.seed}.")
        for name in ("epochs", "batch_size", "learning_rate", "max_gradient_norm", "checkpoint_steps"):
            require_positive(name, msgspec.structs.asdict(self)[name])
        if not (0 <= self.warmup_share < 1 and self.weight_decay >= 0):
            raise TrainingError(
                f"warmup_share must lie in [0, 1) and weight_decay must not be negative, got {self.warmup_share} and {self.weight_decay}."
            )
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f"There is no training precision {self.precision!r}: choose float32 or bfloat16.")


class TargetSettings(LoopSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings for training a target. A `lora_rank` of 0 trains all weights; embeddings and head are trained whole in any case.

    Attributes:
        add_tokens: tokens of the prompt to add to the tokenizer; see `numbered_tokens`.
    """

    split: SplitName = AUTO
    min_items: MinItems = 1
    label_kind: LabelKind = None
    subsequences: Annotated[bool, Meta(description="Learn every item of a history, not only the last.")] = False
    stride: Stride = None
    left_out: Annotated[float, Meta(description="Share of each history that every epoch leaves out, other items each time.")] = 0.0
    fit: Annotated[
        str,
        Meta(
            description="Parts of the split to learn from: train; train+valid, for a model that is evaluated on test; or all, for one that "
            "is served. Beyond train, a first run on train finds the number of epochs, if users are validated."
        ),
    ] = FIT_TRAIN
    dropout: Annotated[
        float | None, Meta(description="Share of hidden numbers that each training step leaves out; as the base has it by default.")
    ] = None
    normalise: Annotated[
        str,
        Meta(
            description="What probabilities are learnt over: the vocabulary, or the children of each prefix in the catalog, which the "
            "model is then searched with, as its generation_config.json says (renormalize_logits)."
        ),
    ] = VOCABULARY
    label_smoothing: Annotated[
        float,
        Meta(description="Share of each label's weight that all tokens get; with --normalise children, all children of its prefix."),
    ] = 0.0
    neighbour_share: Annotated[
        float,
        Meta(description="With --neighbours: share of the loss that is the neighbour model's candidates, not the item that followed."),
    ] = 0.7
    validate_users: Annotated[
        int,
        Meta(
            ge=0,
            description="Judge the lists of so many validation users after each epoch, as they would be served, and keep the best epoch; "
            "0 for none, which keeps the last.",
        ),
    ] = 0
    patience: Annotated[
        int | None, Meta(ge=1, description="Stop after so many validated epochs without a better one; never by default.")
    ] = None
    add_tokens: tuple[str, ...] = ()
    lora_rank: int = 0
    lora_alpha: Annotated[int, Meta(description="Scale of the LoRA adapters, divided by their rank.")] = 16
    keep_seen: Annotated[
        bool, Meta(description="Keep what validation users have met in their lists, as `evaluate --keep-seen` does; else it is left out.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and self.stride < 1:
            raise TrainingError(f"stride must be at least 1 item, got {self.stride}.")
        for name, share in (("left_out", self.left_out), ("dropout", self.dropout or 0.0), ("label_smoothing", self.label_smoothing)):
            if not 0 <= share < 1:
                raise TrainingError(f"{name} must lie in [0, 1), got {share}.")
        if not 0 < self.neighbour_share <= 1:
            raise TrainingError(f"neighbour_share must lie above 0 and up to 1, got {self.neighbour_share}.")
        if self.normalise not in NORMALISATIONS:
            raise TrainingError(f"Nothing can be normalised over {self.normalise!r}: choose {' or '.join(NORMALISATIONS)}.")
        if self.fit not in FITS:
            raise TrainingError(f"There is no fit {self.fit!r}: choose {', '.join(FITS)}.")
        if self.validate_users < 0:
            raise TrainingError(f"validate_users must not be negative, got {self.validate_users}.")
        if self.patience is not None and (self.patience < 1 or not self.validate_users):
            raise TrainingError("patience is a number of epochs, 1 or more, and needs validate_users: without them no epoch is judged.")
        if self.lora_rank < 0:
            raise TrainingError(f"lora_rank must not be negative, got {self.lora_rank}.")
        require_positive("lora_alpha", self.lora_alpha)


class TeacherSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of teacher data. With `subsequences`, every item of a history is learnt, not only the last."""

    beams: Annotated[int, Meta(description="Lists per prompt, and the beam width of the search for them.")] = 20
    top: Annotated[
        int,
        Meta(
            description="Codes per position whose probabilities are kept one by one, beside those that lists take; others share the rest."
        ),
    ] = 32
    trees: Annotated[int, Meta(description="Prompts per window that lists are searched for, the newest first.")] = 1
    split: SplitName = AUTO
    min_items: MinItems = 1
    label_kind: LabelKind = None
    subsequences: bool = True
    stride: Stride = None
    shard_windows: Annotated[int, Meta(description="Windows per file: the most that an interruption loses.")] = 1024

    def __post_init__(self) -> None:
        for name in ("beams", "top", "trees", "shard_windows"):
            require_positive(name, msgspec.structs.asdict(self)[name])
        if self.beams > 256:
            raise TrainingError(f"beams must be at most 256, got {self.beams}.")
        if self.stride is not None and self.stride < 1:
            raise TrainingError(f"stride must be at least 1 item, got {self.stride}.")


class DraftSettings(LoopSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings for training a draft: loss = (1 - alpha) * cross-entropy + alpha * objective.

    Labels are lists by default for `atspeed-s` and `atspeed-c`, which by themselves do not raise codes that the draft misses. Drafts never
    propose an identifier's last token, and a small draft has no capacity to spare for it. `atspeed-r` compares at the true items by
    default, because its drafts are sampled and often leave the lists.
    """

    objective: Annotated[str, Meta(description=f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}.")] = "atspeed-s"
    alpha: Annotated[float, Meta(description="Weight of the objective; cross-entropy has the rest. Not used by sft.")] = 0.7
    labels: Annotated[
        str | None,
        Meta(
            description="Labels of the cross-entropy: truth (users' items) or lists (the target's, for objectives that have them); lists "
            "by default for atspeed-s and atspeed-c, else truth."
        ),
    ] = None
    last_level: Annotated[bool, Meta(description="Learn an identifier's last token with atspeed-s and atspeed-r, too.")] = False
    true_items: Annotated[
        bool | None,
        Meta(
            description="Compare distributions at the users' items as well as on the target's lists, in equal parts, with atspeed-s and "
            "atspeed-r; by default atspeed-r does."
        ),
    ] = None
    temperature: Annotated[float, Meta(description="Temperature of the logits in atspeed-s and atspeed-r.")] = 1.0
    top: Annotated[int, Meta(description="The draft's most probable tokens per position that atspeed-s compares.")] = 20
    density: Annotated[float, Meta(description="Weight of the density regularisation of atspeed-s.")] = 1.0
    beam_width: Annotated[int, Meta(description="Width of the target's beam in atspeed-c, up to the --beams of the teacher data.")] = 20
    reach: Annotated[int, Meta(description="Width of the draft's beam in atspeed-c, at least --beam-width.")] = 40
    margin: Annotated[float, Meta(description="Margin of the scores in atspeed-c.")] = 1.0
    learning_rate: Annotated[float, Meta(description=_LEARNING_RATE)] = 3e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "top", "beam_width", "reach"):
            require_positive(name, msgspec.structs.asdict(self)[name])
        if self.objective not in OBJECTIVES:
            raise TrainingError(f"There is no objective {self.objective!r}: choose {', '.join(OBJECTIVES)}.")
        if self.labels is not None and self.labels not in LABELS:
            raise TrainingError(f"Cross-entropy can't be taken on {self.labels!r}: choose {' or '.join(LABELS)}.")
        if self.labels == "lists" and self.objective in WITHOUT_LISTS:
            raise TrainingError(f"The objective {self.objective} reads no lists of the target, so its cross-entropy is on the truth.")
        if self.true_items and self.objective not in COMPARING:
            raise TrainingError(f"True items are an option of {' and '.join(COMPARING)}, not of {self.objective}.")
        if not 0 <= self.alpha <= 1:
            raise TrainingError(f"alpha must lie in [0, 1], got {self.alpha}.")
        if self.density < 0:
            raise TrainingError(f"density must not be negative, got {self.density}.")
        if self.objective == "atspeed-c" and self.reach < self.beam_width:
            raise TrainingError(f"reach must be at least beam_width, which it has to cover, got {self.reach} and {self.beam_width}.")

    @property
    def compares_answers(self) -> bool:
        """True if an AtSpeed objective also compares distributions at the users' items."""
        return self.objective == "atspeed-r" if self.true_items is None else self.true_items

    @property
    def learns_lists(self) -> bool:
        """True if the labels of the cross-entropy are the target's lists."""
        return self.objective in ("atspeed-s", "atspeed-c") if self.labels is None else self.labels == "lists"


def require_positive(name: str, value: float) -> None:
    """Raise `TrainingError` unless a setting is above zero."""
    if not value > 0:
        raise TrainingError(f"{name} must be above 0, got {value}.")


class ListQuality(msgspec.Struct, frozen=True):
    """Recall@k and NDCG@k of the lists of some users."""

    k: int
    users: int
    recall: float
    ndcg: float


class ValidatedEpoch(msgspec.Struct, frozen=True):
    """The quality of the model's lists after an epoch, counted from 1.

    Attributes:
        recall, ndcg: Recall@10 and NDCG@10 of the validation users' lists.
        valid_loss: as of `TrainingMetrics`.
    """

    epoch: int
    recall: float
    ndcg: float
    valid_loss: float | None


class TrainingMetrics(msgspec.Struct, frozen=True):
    """The metrics of a run.

    Attributes:
        train_loss: mean loss of the last epoch: of a target in nats per response token, against smoothed and soft labels where it has such;
            of a draft a mixture of cross-entropy and its objective, which is comparable for the same objective and alpha alone.
        valid_loss: mean over the first validation item of every user that has one, in nats per response token; None without such users.
        steps: number of optimizer steps of the whole run.
        samples: number of sequences per epoch.
        tokens: number of tokens per epoch, without padding.
        seconds: wall-clock time of the training since the last resume.
        tokens_per_second: tokens trained per second in that time.
        resumed_from_step: step of the checkpoint that the run continued from; 0 for an uninterrupted run.
        threads: CPU threads of each process.
        best_epoch: the epoch whose model this is, where epochs were validated; 0 for the last.
        validated: what each epoch was worth; of the first run, if another part was learnt in a second.
    """

    train_loss: float
    valid_loss: float | None
    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_per_second: float
    resumed_from_step: int
    threads: int = 0
    best_epoch: int = 0
    validated: tuple[ValidatedEpoch, ...] = ()
