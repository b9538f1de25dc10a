"""What a base says of generating texts, so that transformers writes it again.

transformers reads a temperature without `do_sample`, as the first files of Llama 2 and Vicuna have it, and refuses to write it: a run would
end at its first checkpoint, or behind all that it has learnt. Lists are searched for without any of these settings.
"""

from transformers import GenerationConfig


def make_writable(settings: GenerationConfig) -> None:
    """Add the `do_sample` that settings need where they are not written without.

    Raises:
        ValueError: nor are they with it.
    """
    try:
        settings.validate(strict=True)
    except ValueError:
        settings.do_sample = True
        settings.validate(strict=True)
