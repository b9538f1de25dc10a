"""Settings and metrics of training runs, as `training.json` stores them.

Light to import: reading settings does not load a training library, which takes seconds.
"""

import msgspec

from drafting.errors import SetupError


class TrainingError(SetupError):
    """A training run cannot start or cannot finish; the message is a sentence."""


class LoopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the training loop, for all models.

    Attributes:
        epochs: passes over the samples.
        batch_size: samples per process and step.
        learning_rate: highest learning rate, reached after the warm-up and followed by a cosine schedule.
        weight_decay: weight decay of AdamW.
        warmup_share: share of all steps during which the learning rate rises.
        max_gradient_norm: norm to which longer gradients are clipped.
        precision: float32 or bfloat16 arithmetic; the weights are float32 during training.
        checkpoint_steps: steps between checkpoints, at most so many are lost by an interruption.
        seed: seed of random weights, of the order of the samples and of dropout.
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
    """Settings for training a target.

    Attributes:
        split, min_items: rule to split a stream of interactions, see `SplitRule`; not used for data that is already split.
        subsequences: train on every item given those before it, not only on the last item of each user.
        stride: with subsequences and a bare prompt, number of new items that each further window of a long history scores; None for half
            of the prompt's `max_items`. 1 gives every item its full prompt, larger is faster.
        left_out: share of each window's items that an epoch leaves out, in [0, 1); the choice differs between epochs.
        lora_rank: rank of the LoRA adapters of the attention; embeddings and head are trained whole. 0 trains all weights.
        lora_alpha: scale of the LoRA adapters, divided by the rank.
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
    """Settings of teacher data.

    Attributes:
        beams: number of lists per prompt, and the beam width of the search for them.
        top: number of codes per position whose probabilities are stored one by one; the others share the rest evenly.
        trees: number of prompts per window, newest first, for which lists are searched; the cost is proportional.
        split, min_items, subsequences, stride: as in `TargetSettings`.
        shard_windows: windows per file, at most so many are lost by an interruption.
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
    """Settings for training a draft: loss = (1 - alpha) * cross-entropy + alpha * objective.

    Attributes:
        objective: one of `OBJECTIVES`.
        alpha: weight of the objective; not used by `sft`.
        labels: labels of the cross-entropy: "truth" for the users' items, "lists" for the target's lists, for objectives that have them.
            None is "lists" for `atspeed-s` and `atspeed-c`, which by themselves do not raise codes that the draft misses, else "truth".
        last_level: True if `atspeed-s` and `atspeed-r` also compare the distributions of the last token of identifiers. Drafts never
            propose it, and a small draft has no capacity to spare.
        true_items: True if `atspeed-s` and `atspeed-r` compare distributions at the users' items as well as on the target's lists, in
            equal parts; None is True for `atspeed-r`, whose drafts are sampled and often leave the lists.
        temperature: temperature of the logits in `atspeed-s` and `atspeed-r`.
        top: number of the draft's most probable tokens per position that `atspeed-s` compares.
        density: weight of the density regularisation of `atspeed-s`.
        beam_width, reach: K of the target and N of the draft in `atspeed-c`.
        margin: margin of the scores in `atspeed-c`.
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


class TrainingMetrics(msgspec.Struct, frozen=True):
    """The metrics of a run.

    Attributes:
        train_loss: mean of the last epoch, in nats per response token.
        valid_loss: mean over the first validation item of every user that has one, in nats per response token; None without such users.
        steps: number of optimizer steps of the whole run.
        samples: number of sequences per epoch.
        tokens: number of tokens per epoch, without padding.
        seconds: wall-clock time of the training since the last resume.
        tokens_per_second: in that time.
        resumed_from_step: step of the checkpoint that the run continued from; 0 for an uninterrupted run.
    """

    train_loss: float
    valid_loss: float | None
    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_per_second: float
    resumed_from_step: int
