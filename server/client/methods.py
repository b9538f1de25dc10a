"""From an operation to a method of each face: `blocking` waits for the answer, `awaiting` makes a coroutine that does."""

import inspect
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol

from server.client.operation import Answer, Operation

Arguments = ParamSpec("Arguments")


class Blocking(Protocol):
    """A face whose calls return when they are done."""

    def run(self, operation: Operation[Answer]) -> Answer:
        """Do an operation."""


class Awaiting(Protocol):
    """A face whose calls are awaited."""

    async def run(self, operation: Operation[Answer]) -> Answer:
        """Do an operation."""


def blocking(make: Callable[Arguments, Operation[Answer]]) -> Callable[Concatenate[Blocking, Arguments], Answer]:
    """The method that does what `make` makes."""

    def method(face: Blocking, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return face.run(make(*args, **kwargs))

    _describe(method, make)
    return method


def awaiting(
    make: Callable[Arguments, Operation[Answer]],
) -> Callable[Concatenate[Awaiting, Arguments], Coroutine[Any, Any, Answer]]:
    """The method whose coroutine does what `make` makes."""

    async def method(face: Awaiting, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return await face.run(make(*args, **kwargs))

    _describe(method, make)
    return method


def _describe(method: Callable[..., Any], make: Callable[..., Any]) -> None:
    """Show the operation's name, docstring and arguments in `help`, behind the face itself."""
    update_wrapper(method, make)
    signature = inspect.signature(make)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    (answer,) = inspect.get_annotations(make)["return"].__args__
    shown = signature.replace(parameters=[own, *signature.parameters.values()], return_annotation=answer)
    vars(method)["__signature__"] = shown
