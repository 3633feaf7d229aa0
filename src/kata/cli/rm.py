"""``kata rm``: forget containers; by force whatever state they are in."""

from __future__ import annotations

from kata.cli.context import for_each, open_store
from kata.errors import NotFound
from kata.runtime.cleanup import discard, remove
from kata.runtime.store import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Remove containers; with ``--force`` a missing one is what was wanted."""
    store = open_store(options)

    def act(name: str) -> None:
        try:
            state = store.find(name)
        except Damaged as error:
            if not options.force:
                raise
            discard(store, error.container_id)
            print(name)
            return
        except NotFound as error:
            if options.force and not error.why:  # "ambiguous" stays an error
                return
            raise
        remove(store, state, force=options.force)
        print(name)

    return for_each(options.containers, options, act)
