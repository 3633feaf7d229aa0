"""From the kernel's hands to a working guest: root, mounts, modules, console, the agent's port.

The rule: done once, before anything is forked. Nothing here reads the boot id or random numbers.
"""

from __future__ import annotations

import os
import time
from select import EPOLLHUP, EPOLLIN, epoll

from kata.errors import GuestError
from kata.guest import modules
from kata.linux import syscalls as sc

PORT = "kata.agent.0"
_MODULES = "/etc/kata/modules"
_SECURE = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
_MOUNTS = (
    ("proc", "/proc", "proc", _SECURE, None),
    ("sysfs", "/sys", "sysfs", _SECURE, None),
    ("devtmpfs", "/dev", "devtmpfs", sc.MS_NOSUID, "mode=755"),
    ("tmpfs", "/run", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755"),
    ("tmpfs", "/tmp", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", _SECURE, "nsdelegate"),
)  # fmt: skip
_PORTS = "/sys/class/virtio-ports"
_WAIT_S, _STEP_S = 10.0, 0.01


def move_root() -> None:
    """Give the agent a root that is not the initramfs itself, which pivot_root(2) refuses.

    The new root is the same tree, mounted over the old one: nothing below it can be named.
    """
    os.makedirs("/newroot", 0o700, exist_ok=True)
    sc.mount("/", "/newroot", None, sc.MS_BIND)
    os.chdir("/newroot")
    sc.mount(".", "/", None, sc.MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def mount_all() -> None:
    """Mount what every Linux has; containers' mounts follow those of the agent (rshared)."""
    for source, target, fstype, flags, data in _MOUNTS:
        os.makedirs(target, 0o755, exist_ok=True)
        sc.mount(source, target, fstype, flags, data)
    sc.mount("", "/", None, sc.MS_SHARED | sc.MS_REC)


def open_console() -> None:
    """Make the console the agent's standard streams."""
    try:
        fd = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        fd = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(fd, number)
    if fd > 2:
        os.close(fd)


def load_modules() -> None:
    """Load the modules that came with the image."""
    modules.load_list(_MODULES)


def open_port(name: str = PORT) -> int:
    """Open the virtio-serial port of this name, waiting until it is there."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        device = _find_port(name)
        if device:
            return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(_STEP_S)
    raise GuestError(f'no virtio-serial port "{name}"', hint="is virtio_console loaded?")


def _find_port(name: str) -> str:
    try:
        ports = os.listdir(_PORTS)
    except FileNotFoundError:
        return ""
    for port in ports:
        try:
            with open(f"{_PORTS}/{port}/name", "rb", buffering=0) as file:
                if file.read(256).decode().strip() == name and os.path.exists(f"/dev/{port}"):
                    return f"/dev/{port}"
        except OSError:
            continue
    return ""


def wait_for_host(port: int) -> None:
    """Wait until the host has the other end of the port open."""
    poller = epoll()
    poller.register(port, EPOLLIN)
    while any(events & EPOLLHUP for _, events in poller.poll(0)):
        time.sleep(_STEP_S)
    poller.close()


def steady_heap() -> None:
    """Let the heap keep what it once had, mallopt(3), and give it some to begin with.

    Growing and shrinking it by system calls is work that a clone would do anew at every start.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    for option, size in ((trim_threshold, 64 << 20), (top_pad, 1 << 20), (mmap_threshold, 8 << 20)):
        sc.libc.mallopt(option, size)
    bytes(1 << 20)


def log(text: str) -> None:
    """One line on the console."""
    os.write(2, f"kata-agent: {text}\n".encode("utf-8", "replace"))


def parameters() -> dict[str, str]:
    """The kernel's command line parameters that are ours, without their prefix ``kata.``."""
    with open("/proc/cmdline", "rb", buffering=0) as file:
        words = file.read(4096).decode("utf-8", "replace").split()
    found = (word.partition("=") for word in words if word.startswith("kata."))
    return {name[5:]: value for name, _, value in found}
