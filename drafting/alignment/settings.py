"""The settings and the outcome of a training run, as `training.json` keeps them.

Light to import: who only wants to know how a model was or would be trained need not load a training library, which takes seconds.
"""

import msgspec

from drafting.errors import SetupError


class TrainingError(SetupError):
    """A training run that cannot start or cannot be finished; the message is a sentence."""


class LoopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How any model is trained; everything here is written to `training.json`.

    Attributes:
        epochs: passes over the samples.
        batch_size: samples per process and step.
        learning_rate: the highest one, reached after the warm-up and then lowered along a cosine.
        weight_decay: of AdamW.
        warmup_share: the part of all steps that the learning rate rises for.
        max_gradient_norm: longer gradients are shortened to it.
        precision: of the arithmetic; weights are always float32 while they are trained.
        checkpoint_steps: steps between checkpoints, the most that an interruption loses.
        seed: of the weights, the order of the samples and dropout.
    """

    epochs: float = 10.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    max_gradient_norm: float = 1.0
    precision: str = "float32"
    checkpoint_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "max_gradient_norm", "checkpoint_steps"):
            require_positive(name, msgspec.structs.asdict(self)[name])
        if not (0 <= self.warmup_share < 1 and self.weight_decay >= 0):
            raise TrainingError(
                f"warmup_share must lie in [0, 1) and weight_decay must not be negative, got {self.warmup_share} and {self.weight_decay}."
            )
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f"There is no training precision {self.precision!r}: choose float32 or bfloat16.")


class TargetSettings(LoopSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to train a target.

    Attributes:
        split, min_items: how a stream of interactions is split, see `SplitRule`; data that comes split ignores them.
        subsequences: learn every item given those before it, not only each user's last.
        stride: with subsequences and a bare prompt, how many new items each further window of a long history scores; None for half of
            the prompt's `max_items`. 1 gives every item its full prompt, larger is faster.
        left_out: the part of each window's items that an epoch leaves out, others each time, in [0, 1).
        lora_rank: train low-rank additions of this rank to the attention's projections, and the embeddings and the head whole; 0 trains
            every weight.
        lora_alpha: what the additions are scaled by, divided by the rank.
    """

    split: str = "leave-one-out"
    min_items: int = 1
    subsequences: bool = False
    stride: int | None = None
    left_out: float = 0.0
    lora_rank: int = 0
    lora_alpha: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and self.stride < 1:
            raise TrainingError(f"stride must be at least 1 item, got {self.stride}.")
        if not 0 <= self.left_out < 1:
            raise TrainingError(f"left_out must lie in [0, 1), got {self.left_out}.")
        if self.lora_rank < 0:
            raise TrainingError(f"lora_rank must not be negative, got {self.lora_rank}.")
        require_positive("lora_alpha", self.lora_alpha)


class TeacherSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to ask the target.

    Attributes:
        beams: lists per prompt, and the width of the beam that finds them.
        top: codes per position whose probabilities are kept one by one; the others share the rest evenly.
        trees: prompts per window that lists are asked for, the newest first; more teach more and cost in proportion.
        split, min_items, subsequences, stride: the windows, as in `TargetSettings`.
        shard_windows: windows per file, the most that an interruption loses.
    """

    beams: int = 20
    top: int = 32
    trees: int = 1
    split: str = "leave-one-out"
    min_items: int = 1
    subsequences: bool = True
    stride: int | None = None
    shard_windows: int = 1024

    def __post_init__(self) -> None:
        for name in ("beams", "top", "trees", "shard_windows"):
            require_positive(name, msgspec.structs.asdict(self)[name])
        if self.beams > 256:
            raise TrainingError(f"beams must be at most 256, got {self.beams}.")
        if self.stride is not None and self.stride < 1:
            raise TrainingError(f"stride must be at least 1 item, got {self.stride}.")


LABELS = ("truth", "lists")
COMPARING = ("atspeed-s", "atspeed-r")
WITHOUT_LISTS = ("sft", "wordkd", "tvdkd")
OBJECTIVES = ("sft", "wordkd", "tvdkd", "seqkd", "atspeed-s", "atspeed-r", "atspeed-c")


class DraftSettings(LoopSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to train a draft: loss = (1 - alpha) * cross-entropy on the ground truth + alpha * the objective.

    Attributes:
        objective: one of `OBJECTIVES`.
        alpha: the objective's weight; the objective `sft` has none.
        labels: what cross-entropy is taken on: "truth", what users did, or "lists", the target's own lists, for objectives that have them;
            None for the lists with `atspeed-s`, which does not move a code into the draft's reach by itself, and with `atspeed-c`, which
            only ranks; the truth with all others.
        last_level: whether `atspeed-s` and `atspeed-r` also compare the distributions of an identifier's last token. No draft ever
            proposes it, so learning it takes from a small draft what it needs for the others.
        true_items: whether `atspeed-s` and `atspeed-r` compare distributions at the true items as well as on the target's lists, in
            equal parts; None for `atspeed-r` alone. Its drafts are sampled, and a sample leaves the lists often enough.
        temperature: what logits are divided by, for `atspeed-s` and `atspeed-r`.
        top: the draft's tokens per position that `atspeed-s` compares.
        density: weight of `atspeed-s`'s density regularisation.
        beam_width, reach: for `atspeed-c`, K of the target and N of the draft.
        margin: for `atspeed-c`, by how much a beam should clear the bar.
    """

    objective: str = "atspeed-s"
    alpha: float = 0.7
    labels: str | None = None
    last_level: bool = False
    true_items: bool | None = None
    temperature: float = 1.0
    top: int = 20
    density: float = 1.0
    beam_width: int = 20
    reach: int = 40
    margin: float = 1.0
    learning_rate: float = 3e-3

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

    @property
    def compares_answers(self) -> bool:
        """Whether an AtSpeed objective also compares distributions at the true items."""
        return self.objective == "atspeed-r" if self.true_items is None else self.true_items

    @property
    def learns_lists(self) -> bool:
        """Whether cross-entropy is taken on the target's lists."""
        return self.objective in ("atspeed-s", "atspeed-c") if self.labels is None else self.labels == "lists"


def require_positive(name: str, value: float) -> None:
    """Raise `TrainingError` unless the setting is above zero."""
    if not value > 0:
        raise TrainingError(f"{name} must be above 0, got {value}.")


class TrainingMetrics(msgspec.Struct, frozen=True):
    """What a run came to.

    Attributes:
        train_loss: mean over the last epoch, nats per response token.
        valid_loss: of the first validation item of every user that has one, nats per response token; None without such users.
        steps: optimizer steps of the whole run.
        samples: sequences per epoch.
        tokens: real tokens per epoch, without padding.
        seconds: wall-clock time of the training since it was last resumed.
        tokens_per_second: in that time.
        resumed_from_step: the checkpoint that the run went on from; 0 for an uninterrupted run.
    """

    train_loss: float
    valid_loss: float | None
    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_per_second: float
    resumed_from_step: int
