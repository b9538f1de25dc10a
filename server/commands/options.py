"""Options of the command line that are fields of `Settings`, or of a struct of settings: names, types, defaults and help come from there.

Invariant: a value goes to `Settings` as it was given, so a bad one gets the same sentence whether it came by flag or by variable. A default
that depends on the machine or its user is worked out when a command runs, not when this module is imported: `--help` works even for a user
without a home directory.
"""

import inspect
from collections.abc import Callable, Collection
from enum import EnumType
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import typer

from drafting.errors import SetupError
from server.commands.terminal import failing_on
from server.engine_settings import Panel
from server.settings import Settings, SettingsError

Command = Callable[..., None]


def setting(name: str, **more: Any) -> Any:
    """The option of a setting, to annotate a parameter with; `more` is what this command says otherwise, as `typer.Option` takes it."""
    kind = _kind(name)
    choices = kind if isinstance(kind, EnumType) else get_args(kind)
    field = Settings.model_fields[name]
    # What depends on the machine is in the description.
    said = {"help": field.description, "metavar": "|".join(choices) or None, "show_default": field.default_factory is None}
    return typer.Option(**(said | more))


def default(name: str) -> Any:
    """The default of a setting, as typer takes it: what it calls when the command runs, or a value; None where there is none."""
    field = Settings.model_fields[name]
    return None if field.is_required() else field.default_factory or field.default


def takes_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these settings, of all where none is named; it gets what they resolve to as `settings`."""
    chosen = sorted(names or Settings.model_fields, key=lambda name: list(Panel).index(_panel(name)))

    return _taking([_parameter(name) for name in chosen], Settings.resolve)


def takes_struct(struct: type[msgspec.Struct], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of a struct's fields but those left out; it gets the struct made of them as `settings`.

    A field without a description is the setting of the server that has its name.
    """
    return _taking(_struct_parameters(struct, without), struct)


def takes_given(struct: type[msgspec.Struct], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """As `takes_struct`, for a command that has other defaults at times: it gets a dictionary of the options that were given."""

    def given(context: typer.Context, **flags: object) -> dict[str, object]:
        sources = {name: context.get_parameter_source(name) for name in flags}
        return {name: flags[name] for name, source in sources.items() if source is not None and source.name != "DEFAULT"}

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return _taking([context, *_struct_parameters(struct, without)], given)


def takes(make: Callable[..., object]) -> Callable[[Command], Command]:
    """Give a command the options of a function, annotated as a command's are; it gets what this makes of them as `settings`."""
    return _taking(
        [_keyword(part.name, part.default, part.annotation) for part in inspect.signature(make, eval_str=True).parameters.values()], make
    )


def _struct_parameters(struct: type[msgspec.Struct], without: Collection[str]) -> list[inspect.Parameter]:
    parameters = []
    for field in msgspec.structs.fields(struct):
        if field.name not in without:
            kind, *meta = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
            if meta:
                option = typer.Option(help=meta[0].description, min=meta[0].ge, max=meta[0].le, show_default=field.default is not None)
            else:
                option = setting(field.name)
            parameters.append(_keyword(field.name, field.default, Annotated[kind, option]))
    return parameters


def _taking(parameters: list[inspect.Parameter], make: Callable[..., object]) -> Callable[[Command], Command]:
    """Add parameters to a command, which gets what `make` makes of them as `settings`."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**flags: object) -> None:
            with failing_on(SettingsError, SetupError):
                settings = make(**{part.name: flags.pop(part.name) for part in parameters})
            command(settings=settings, **flags)

        own = [part for part in inspect.signature(command, eval_str=True).parameters.values() if part.name != "settings"]
        signature = inspect.Signature([part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in own] + parameters)
        vars(run)["__signature__"] = signature
        return run

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    """A parameter that is None where neither flag nor variable is given."""
    kind, shown = _kind(name), default(name)
    if kind is bool:
        shown = name.replace("_", "-") if shown else f"no-{name.replace('_', '-')}"
    # A list of choices is for `Settings` to judge.
    taken = str if isinstance(kind, EnumType) or get_origin(kind) is Literal else kind
    field = Settings.model_fields[name]
    option = setting(
        name,
        help=f"{field.description}{' Required.' if field.is_required() else ''}",
        envvar=f"ATSPEED_{name.upper()}",
        rich_help_panel=_panel(name).value,
        show_default=False if shown is None or callable(shown) else str(shown),
    )
    return _keyword(name, None, Annotated[taken | None, option])


def _keyword(name: str, value: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)


def _kind(name: str) -> Any:
    """The type of a setting where it is not None."""
    annotation = Settings.model_fields[name].annotation
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _panel(name: str) -> Panel:
    return next(mark for mark in Settings.model_fields[name].metadata if isinstance(mark, Panel))
