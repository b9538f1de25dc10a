"""The settings and the outcome of a training run, as `training.json` keeps them.

Light to import: who only wants to know how a model was or would be trained need not load a training library, which takes seconds.
"""

import msgspec


class TrainingError(ValueError):
    """A training run that cannot start or cannot be finished; the message is a sentence."""


class TargetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to train; everything here is written to `training.json`.

    Attributes:
        epochs: passes over the samples.
        batch_size: samples per process and step.
        learning_rate: the highest one, reached after the warm-up and then lowered along a cosine.
        weight_decay: of AdamW.
        warmup_share: the part of all steps that the learning rate rises for.
        max_gradient_norm: longer gradients are shortened to it.
        subsequences: learn every item given those before it, not only each user's last.
        stride: with subsequences and a bare prompt, how many new items each further window of a long history scores; None for half of
            the prompt's `max_items`. 1 gives every item its full prompt, larger is faster.
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
    subsequences: bool = False
    stride: int | None = None
    precision: str = "float32"
    checkpoint_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "max_gradient_norm": self.max_gradient_norm,
            "checkpoint_steps": self.checkpoint_steps,
        }
        for name, value in positive.items():
            if not value > 0:
                raise TrainingError(f"{name} must be above 0, got {value}.")
        if not (0 <= self.warmup_share < 1 and self.weight_decay >= 0):
            raise TrainingError(
                f"warmup_share must lie in [0, 1) and weight_decay must not be negative, got {self.warmup_share} and {self.weight_decay}."
            )
        if self.stride is not None and self.stride < 1:
            raise TrainingError(f"stride must be at least 1 item, got {self.stride}.")
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f"There is no training precision {self.precision!r}: choose float32 or bfloat16.")


class TargetMetrics(msgspec.Struct, frozen=True):
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
