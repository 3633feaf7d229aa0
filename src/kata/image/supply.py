"""The packages an image is made of: by name, or by the shared library that is wanted.

The one rule: every package that was used is known afterwards, with its version and digest.
"""

from __future__ import annotations

from kata.errors import HostError, ImageError
from kata.image import debian

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from kata.image.debian import Package

    T = TypeVar("T")


class Supply:
    """Fetches packages into ``cache``; lists of packages that are stale are read again, once."""

    def __init__(self, cache: str, say: Callable[[str], None]) -> None:
        self._cache = cache
        self._say = say
        self._fresh = False
        self._known: frozenset[str] = frozenset()
        self.used: dict[str, Package] = {}

    def release(self) -> tuple[str, str]:
        """The kernel's package, and the version of Python, of this release."""
        return self._retried(debian.release)

    def bring(self, names: Sequence[str]) -> list[str]:
        """Fetch packages by name; their files, in that order. Raises ``HostError``."""

        def fetch() -> tuple[Package, ...]:
            packages = debian.available(names)
            debian.fetch(packages, self._cache, self._say)
            return packages

        found = {package.name: package for package in self._retried(fetch)}
        self.used.update(found)
        return [f"{self._cache}/{found[name].file}" for name in names]

    def libraries(self, sonames: Sequence[str]) -> list[str]:
        """Fetch the packages that hold shared libraries; their files.

        Raises ``ImageError`` for a library that no known package can hold.
        """
        self._known = self._known or debian.known()
        names: dict[str, None] = {}
        for soname in sonames:
            candidates = debian.library_packages(soname)
            name = next((n for n in candidates if n in self._known), None)
            if name is None:
                raise ImageError(
                    f'shared library "{soname}"',
                    why=f"there is no package {' or '.join(candidates)}",
                )
            names[name] = None
        return self.bring(list(names))

    def _retried(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except HostError:
            if self._fresh:
                raise
        self._fresh = True
        self._say("reading the lists of packages again")
        debian.refresh()
        return action()
