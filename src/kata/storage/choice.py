"""Who serves the share of a sandbox, as the settings say it or as the host allows.

The one rule: asked once for a sandbox, before its machine is described: the kinds differ in what is
wired into it.
"""

from __future__ import annotations

from kata.errors import HostError
from kata.storage import virtiofsd

AUTO, VIRTIO_FS, VIRTIO_9P, NONE = "auto", "virtio-fs", "virtio-9p", "none"


def chosen(kind: str, daemon: str = "") -> str:
    """``VIRTIO_FS``, ``VIRTIO_9P`` or ``NONE`` for the setting ``shared_fs``.

    ``daemon`` is the configured one. A daemon is a process that can do nothing else, so ``AUTO`` is
    9p, for which the VMM gets rights over files, only where there is none.
    """
    if kind != AUTO:
        return kind
    try:
        virtiofsd.find(daemon)
    except HostError:
        return VIRTIO_9P
    return VIRTIO_FS
