"""The log: one line per event on standard error, the same in both processes, for people or as JSON.

Invariant: a line that is written while a request is answered carries that request's id, and no line carries what a user met or an item's
name. Reason: logs are copied to places that users' data must not reach, and the id is enough to find the request's other lines and its
trace.
"""

import logging
import os
import sys
from contextvars import ContextVar

from server.engine_settings import LogFormat

# The id of the request that is being answered; tasks inherit it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure_logs(level: str, process: str, form: LogFormat = "text") -> None:
    """Send all logs of this process to standard error.

    Args:
        level: the lowest level shown, such as `INFO`.
        process: name of the process, such as `api` or `engine`.
        form: `text`, or `json` for one object a line: time, level, process, pid, logger, message, request_id. A line in text has the id
            at the end of its message; in both it is where there is one.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_note_request if form == "json" else _end_in_request)
    handler.setFormatter(_json_formatter(process) if form == "json" else _text_formatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _note_request(record: logging.LogRecord) -> bool:
    if (current := request_id.get()) is not None:
        record.request_id = current
    return True


def _end_in_request(record: logging.LogRecord) -> bool:
    current = request_id.get()
    record.request = "" if current is None else f" [request {current}]"
    return True


def _text_formatter(process: str) -> logging.Formatter:
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {process}[{os.getpid()}] %(name)s: %(message)s%(request)s")


def _json_formatter(process: str) -> logging.Formatter:
    # Only who asks for JSON needs the package.
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["asctime", "levelname", "name", "message"],
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        static_fields={"process": process, "pid": os.getpid()},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
