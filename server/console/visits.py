"""`Visits`: the users that lists were made for, so that they can be chosen again."""

MOST_USERS = 50


class Visits:
    """Users that this console has asked for, in memory only."""

    def __init__(self) -> None:
        self._users: dict[str, None] = {}

    @property
    def users(self) -> list[str]:
        """The newest first."""
        return list(reversed(self._users))

    def note(self, user_id: str) -> None:
        """Note a visit; the oldest is forgotten."""
        self._users.pop(user_id, None)
        self._users[user_id] = None
        if len(self._users) > MOST_USERS:
            del self._users[next(iter(self._users))]
