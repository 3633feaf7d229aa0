"""Tap devices and vhost-net: descriptors that carry a virtual machine's frames.

The one rule: nothing here outlives its descriptors; a tap goes when the last of them is closed.
Sources: Documentation/networking/tuntap.rst, linux/{if_tun,vhost}.h.
"""

from __future__ import annotations

import os
from fcntl import ioctl

TUN, VHOST = "/dev/net/tun", "/dev/vhost-net"
_TUNSETIFF, _VHOST_GET_FEATURES = 0x400454CA, 0x8008AF00
_TAP, _NO_PACKET_INFO, _VNET_HEADER = 0x0002, 0x1000, 0x4000
_NAME_SIZE, _REQUEST_SIZE = 16, 40


def open_tap(name: str, device: str = TUN) -> int:
    """A new tap of this name in the network namespace of the caller. Raises ``OSError``.

    Frames come with a virtio-net header: checksums and segments are left to whoever is last.
    """
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    flags = (_TAP | _NO_PACKET_INFO | _VNET_HEADER).to_bytes(2, "little")
    try:
        ioctl(fd, _TUNSETIFF, (name.encode().ljust(_NAME_SIZE, b"\0") + flags).ljust(_REQUEST_SIZE))
    except OSError:
        os.close(fd)
        raise
    return fd


def open_vhost(device: str = VHOST) -> int:
    """The kernel's own mover of frames, -1 where there is none that works."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        ioctl(fd, _VHOST_GET_FEATURES, bytes(8))
    except OSError:
        os.close(fd)
        return -1
    return fd
