"""An engine process without a model, run as one: what it does is told by the `target` of its options.

A target that starts with `turns:` names a file of such behaviours, one a line; each process takes the first away, the last one stays. One
that starts with `denies:` names a file of items: after a history of one of these the scores are not finite.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from server.engine.channel import MOST_BYTES, Channel
from server.engine_settings import EngineOptions
from server.messages import FailedList, FinishedList, Progress, Shutdown, StartFailure, StepRecord
from server.submit import Submit
from tests.server.engine_end import messages_of
from tests.server.fake_ready import READY, write_fake_prompts
from verification.result import BeamResult, RankedItem, StepReport, Usage

# Of an engine that is broken: no message, half of one, text that is none, and one that no engine needs.
UNREADABLE = {
    "garbled": b"\xc1\x00\xff",
    "cut off": msgspec.msgpack.encode(READY)[:-9],
    "no text": b"\x82\xa4type\xa5Alive\xa5doing\xa2\xff\xfe",
    "oversized": b"\xc4" * (MOST_BYTES + 1),
}


def main(address: str, options_json: str) -> int:
    behaviour = str(EngineOptions.model_validate_json(options_json).target)
    if behaviour.startswith("turns:"):
        turns = Path(behaviour.removeprefix("turns:"))
        behaviour, *later = turns.read_text().splitlines()
        turns.write_text("\n".join(later or [behaviour]))
    with Channel.connect(address) as channel:
        if behaviour == "crashes":
            return 3
        if behaviour == "cannot start":
            channel.send(msgspec.msgpack.encode(StartFailure("The model is made of cheese.")))
            return 1
        version = "v2" if behaviour == "other catalog" else "v1"
        cost = {"forward_seconds": 60.0, "token_seconds": 1.0, "step_tokens": 1} if behaviour == "measured slowly" else {}
        prompts = write_fake_prompts(Path(tempfile.gettempdir()))
        ready = msgspec.structs.replace(READY, model="fake", catalog_version=version, prompts=prompts, **cost)
        channel.send(msgspec.msgpack.encode(ready))
        for message in messages_of(channel):
            if isinstance(message, Shutdown):
                if behaviour == "deaf":
                    time.sleep(60)
                return 0
            if not isinstance(message, Submit) or message.request_id.startswith("silence"):
                continue
            if message.request_id == "die":
                return 5
            if message.request_id == "spawn":
                subprocess.Popen(["sleep", "600"])
            if message.request_id in UNREADABLE:
                channel.send(UNREADABLE[message.request_id])
                continue
            finished = [FinishedList(BeamResult(message.request_id, (RankedItem(0, -1.0, 1),), Usage(1, 0, 1)), 0.0, 0.0)]
            failed = [FailedList(message.request_id, None if message.request_id == "late" else "It is refused.")]
            answers = message.request_id in ("fine", "drop", "spawn")
            if behaviour.startswith("denies:"):
                answers = not {str(item) for item in message.history} & set(Path(behaviour.removeprefix("denies:")).read_text().split())
                failed = [FailedList(message.request_id, not_finite=True)]
            step = StepRecord(StepReport((), 1, 0.001, draft_failed=message.request_id == "drop"), 0.0, 0.0)
            progress = Progress(finished if answers else [], [] if answers else failed, [step], running=0, waiting=0, used_slots=0)
            channel.send(msgspec.msgpack.encode(progress))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
