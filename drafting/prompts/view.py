"""An object whose fields a template reads, and the errors of templates whose sentences are our own.

Invariant: a `SaidError` quotes no value of a person; it quotes only names and sentences that stand in the template itself. What any other
error says is never shown.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError


class SaidError(TemplateRuntimeError):
    """A sentence that may be told to whoever asked."""


class NoSuchName(SaidError):
    """A template names what there can't be, or reads it as what it can't be, whoever the user is."""


class NoValue(SaidError):
    """What a template needs is not known of this user."""


class View:
    """An object whose fields a template reads; it has no others, such as methods, and is no text, number or list.

    Attributes:
        subject: how a sentence about it begins.
    """

    __slots__ = ()
    subject = "an item"

    def look_up(self, name: str) -> Any:
        """The value of a field, or None if it is not known.

        Raises:
            NoSuchName: there is no such field.
        """
        raise NotImplementedError

    def describe(self, name: str) -> str:
        """The name of a missing value for users, as it continues a sentence after "there is no"."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        return True

    def _refuse(self, *_: Any) -> NoReturn:
        raise NoSuchName(f"{self.subject} is no text, number or list: name one of its fields, as in {self.subject.split()[-1]}.NAME")

    # Python's own text of an object shows where it lies in memory.
    def __str__(self) -> str:
        self._refuse()

    def __repr__(self) -> str:
        self._refuse()

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def __contains__(self, name: object) -> bool:
        self._refuse()

    def __len__(self) -> int:
        self._refuse()

    __int__ = __float__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = _refuse
