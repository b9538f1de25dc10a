"""A sample user, of whom everything is known that a template may ask for: templates are tried on one before there are any users."""

from typing import Any

from drafting.array_types import IntArray
from drafting.prompts.user_state import UserEvent, UserState

_SOME_TIME = 1_700_000_000.0


class _Sample(str):
    """A text that is a number beside numbers."""

    __slots__ = ()

    def __lt__(self, other: Any) -> bool:
        return str(self) < other if isinstance(other, str) else other > 1

    def __le__(self, other: Any) -> bool:
        return str(self) <= other if isinstance(other, str) else other >= 1

    def __gt__(self, other: Any) -> bool:
        return str(self) > other if isinstance(other, str) else other < 1

    def __ge__(self, other: Any) -> bool:
        return str(self) >= other if isinstance(other, str) else other <= 1

    def __add__(self, other: Any) -> Any:
        return str(self) + other if isinstance(other, str) else int(str(self)) + other

    def __radd__(self, other: Any) -> Any:
        return other + str(self) if isinstance(other, str) else other + int(str(self))

    def __mul__(self, other: Any) -> Any:
        return other * int(str(self))

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return int(str(self)) - other

    def __rsub__(self, other: Any) -> Any:
        return other - int(str(self))

    def __mod__(self, other: Any) -> Any:
        return int(str(self)) % other

    def __floordiv__(self, other: Any) -> Any:
        return int(str(self)) // other

    def __truediv__(self, other: Any) -> Any:
        return int(str(self)) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / int(str(self))


class _Anything(dict[str, Any]):
    """One value by any name."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = _Sample(value)

    def get(self, name: str, default: Any = None) -> _Sample:
        """The value."""
        return self._value


def sample_user(items: IntArray, kinds: tuple[str, ...], value: str = "1") -> UserState:
    """A user with these items in their history and in the list of each kind, `[items]`; all else is one value, a number as a text."""
    anything = _Anything(value)
    events = [UserEvent(item, value, 1.0, _SOME_TIME, anything) for item in items.tolist()]
    return UserState(events, dict.fromkeys(kinds, events), anything, anything, _Sample(value))
