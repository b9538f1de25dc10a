"""The real engine process, but for its draft: after `FORWARDS` forwards it fails, as one whose device has run out of memory does."""

import sys
from typing import Any

from torch import Tensor

from drafting.beam.model import TreeBatch, TreeModel
from server.engine.main import main
from verification import recommender

# Two for the list that nobody asked for, two for the first that somebody did.
FORWARDS = 4

load_host = recommender.load_host


def load_failing(*arguments: Any, **options: Any) -> TreeModel:
    model = load_host(*arguments, **options)
    # Only a draft is told how many slots it has: as many as the target.
    if options.get("slots") is None:
        return model
    score, left = model.score, FORWARDS

    def score_or_fail(batch: TreeBatch) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("the draft is out of memory")
        return score(batch)

    model.score = score_or_fail
    return model


recommender.load_host = load_failing

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
