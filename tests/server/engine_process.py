"""The number of the process that a supervisor has started."""

from server.engine.supervisor import EngineSupervisor


def process_id(supervisor: EngineSupervisor) -> int | None:
    """The engine process, whatever it has come to; None if none runs."""
    return None if supervisor._process is None else supervisor._process.pid
