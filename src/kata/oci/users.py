"""``USER[:GROUP]`` to numbers, by the passwd and group files of an image.

The one rule: the answers are Docker's: a number is a number even where a user has it as a name,
the first match wins, supplementary groups only without an explicit group. The texts come
from an image and are not trusted: lines whose numbers are none are skipped (Docker reads 0).
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.wire.record import record

_MAX_ID = (1 << 31) - 1  # of a number given
_MAX_LISTED = (1 << 32) - 2  # of a number in a file


@record
class User:
    """Who a process runs as; ``groups`` are supplementary, without ``gid``."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def resolve(wanted: str, passwd: str, group: str, *, extra: tuple[str, ...] = ()) -> User:
    """The user that ``wanted`` (``user``, ``uid``, ``user:group``, …, empty for root) means.

    ``extra`` are more groups, by name or number. Raises ``InvalidInput`` if a name is in neither
    file or a number out of range.
    """
    user_part, _, rest = wanted.partition(":")
    group_part = rest.partition(":")[0]
    users = [
        (f[0], uid, gid, f[5])
        for f in _entries(passwd, 6)
        if (uid := _listed(f[2])) is not None and (gid := _listed(f[3])) is not None
    ]
    groups = [
        (f[0], gid, f[3].split(","))
        for f in _entries(group, 4)
        if (gid := _listed(f[2])) is not None
    ]
    found = _user(user_part, users)
    gid, supplementary = _groups(group_part, found, groups)
    for name in extra:
        number = _group(name, groups)
        if number not in supplementary:
            supplementary.append(number)
    return User(found.uid, gid, tuple(supplementary), found.home or "/", found.name)


def _entries(text: str, fields: int) -> list[list[str]]:
    """The colon-separated lines of a file, each filled up to a number of fields."""
    found = []
    for line in text.split("\n"):
        if line := line.strip():
            parts = line.split(":")
            found.append(parts + [""] * (fields - len(parts)))
    return found


def _number(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isdecimal() or not digits.isascii() or len(digits) > 20:
        return None
    return int(text)


def _listed(text: str) -> int | None:
    """An id as a file has it; none if it is out of what the kernel takes."""
    number = _number(text)
    return number if number is not None and 0 <= number <= _MAX_LISTED else None


def _checked(number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise InvalidInput(
            f'user or group id "{number}"', why=f"uids and gids must be in range 0-{_MAX_ID}"
        )
    return number


def _user(wanted: str, users: list[tuple[str, int, int, str]]) -> User:
    number = _number(wanted) if wanted else 0
    for name, uid, gid, home in users:
        if (uid == number) if number is not None else (name == wanted):
            return User(uid, gid, (), home, name)
    if number is None:
        raise InvalidInput(
            f"unable to find user {wanted}", why="no matching entries in passwd file"
        )
    return User(_checked(number))


def _group(wanted: str, groups: list[tuple[str, int, list[str]]]) -> int:
    number = _number(wanted)
    for name, gid, _ in groups:
        if (gid == number) if number is not None else (name == wanted):
            return gid
    if number is None:
        raise InvalidInput(
            f"unable to find group {wanted}", why="no matching entries in group file"
        )
    return _checked(number)


def _groups(
    wanted: str, user: User, groups: list[tuple[str, int, list[str]]]
) -> tuple[int, list[int]]:
    if wanted:
        return _group(wanted, groups), []
    if not user.name:
        return user.gid, []
    return user.gid, [gid for _, gid, members in groups if user.name in members]
