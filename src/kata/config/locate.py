"""Where things are when a setting leaves it open: programs, the guest image.

The one rule: a setting that names a path is taken as it is; only an empty one is looked up.
"""

from __future__ import annotations

import os

from kata.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.config.settings import Config

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DAEMONS = ("/usr/libexec", "/usr/lib/qemu", "/usr/lib")


def program(name: str, also: tuple[str, ...] = ()) -> str:
    """The path of a program on ``$PATH``, the usual path, or in ``also``; "" if there is none."""
    path = f"{os.environ.get('PATH', '')}:{_SEARCH}"
    for directory in (*path.split(":"), *also):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _needed(given: str, found: str, what: str, hint: str) -> str:
    path = given or found
    if not path:
        raise HostError(f"{what} was not found", hint=hint)
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise HostError(f'{what} "{path}"', why="no program that can be run", hint=hint)
    return path


def qemu(config: Config) -> str:
    """QEMU's program. Raises ``HostError`` if there is none."""
    found = config.hypervisor.path or program("qemu-system-x86_64")
    return _needed(config.hypervisor.path, found, "QEMU", "apt-get install qemu-system-x86")


def virtiofsd(config: Config) -> str:
    """The virtio-fs daemon. Raises ``HostError`` if there is none."""
    found = config.shared_fs.daemon or program("virtiofsd", _DAEMONS)
    hint = "apt-get install qemu-system-common"  # Debian 12; a package of its own from 13 on
    return _needed(config.shared_fs.daemon, found, "the virtio-fs daemon", hint)


def guest_image(config: Config) -> str:
    """The directory of the guest image. Raises ``HostError`` if there is none."""
    if config.runtime.guest_image:
        candidates = [config.runtime.guest_image]
    else:
        candidates = [f"{config.runtime.data_root}/guest/default", f"{_installed()}/default"]
    for candidate in candidates:
        if os.path.isfile(f"{candidate}/manifest.json"):
            return os.path.realpath(candidate)
    raise HostError(
        "there is no guest image",
        why=" or ".join(f'"{c}"' for c in candidates) + " holds no manifest.json",
        hint="kata guest build",
    )


def _installed() -> str:
    """``<prefix>/share/kata`` of an installation in ``<prefix>/lib/kata``."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.normpath(f"{package}/../../../share/kata")
