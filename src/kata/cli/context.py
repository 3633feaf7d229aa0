"""What most verbs begin with: the configuration, the store, the containers that were named."""

from __future__ import annotations

import os
import sys

from kata.config.load import load
from kata.errors import HostError, KataError
from kata.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kata.cli.parse import Options
    from kata.config.settings import Config
    from kata.runtime.store import ContainerState


def configuration(options: Options) -> Config:
    """The configuration that the global options ask for; raises ``InvalidConfig``."""
    return load(options.config, state_root=options.root or "", data_root=options.data_root or "")


def open_store(options: Options) -> Store:
    """The store of containers; raises ``HostError`` if we may not read it."""
    root = configuration(options).runtime.state_root
    if os.path.isdir(root) and not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        if os.geteuid() == 0:
            Store(root).check_writable()
        raise HostError(
            f'cannot read the state directory "{root}"',
            why="permission denied",
            hint=f"run it as root: sudo kata {options.verb}",
        )
    return Store(root)


def list_states(store: Store) -> list[ContainerState]:
    """All containers; of each that cannot be read there is a line on standard error."""
    return store.list(tell_damaged)


def tell_damaged(error: KataError) -> None:
    """Say which container cannot be read: one line."""
    from kata.cli.text import one_line

    print(f"kata: {one_line(str(error))}", file=sys.stderr)


def for_each(names: Iterable[str], options: Options, act: Callable[[str], None]) -> int:
    """Do something to each; an error is told and the rest is done all the same.

    Gives the exit code: that of the last error, or 0.
    """
    from kata.cli.report import report

    code = 0
    for name in names:
        try:
            act(name)
        except KataError as error:
            code = report(error, options)
    return code
