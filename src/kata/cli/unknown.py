"""The error for a verb that does not exist; imported only once there is one."""

from __future__ import annotations

from kata.cli import grammar
from kata.cli.parse import UsageError
from kata.cli.suggest import nearest


def unknown_verb(name: str) -> UsageError:
    """The error for a verb that does not exist, with the one that was probably meant."""
    near = nearest(name, [*grammar.names(), *grammar.GROUPS, *grammar.ALIASES])
    return UsageError(
        f'unknown command "{name}"',
        why=f'did you mean "kata {near}"?' if near else "",
        hint="kata --help lists the commands",
        exit_code=1,
    )
