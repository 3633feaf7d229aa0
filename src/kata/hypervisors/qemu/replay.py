"""A device that QEMU cannot save, carried over a freeze: what its driver wrote is written again.

QEMU refuses to save a vhost-user-fs device, and the guest needs 300 ms under emulation to find one
that is plugged. So the template is booted with the device, whose registers are read when the guest
is stopped (``record``); then the device is taken away, and all else is saved. A copy is given the
device again once the rest is restored, behind the guest's back (``Gate``), and before the guest
runs its registers are written in the driver's order (``Panel.replay``): to the guest nothing has
happened.

The rule: only a device whose queues were never used is carried over, for the daemon behind it is
another one. Both go by QEMU's ``-qtest`` channel, lines of text that read and write addresses; it
is closed before the guest runs. Sources: QEMU's softmmu/qtest.c; virtio 1.1, 4.1.4 and 3.1.1; PCI
local bus specification 3.0, 6.1, 6.7 and 6.8.2.
"""

from __future__ import annotations

from kata.errors import HypervisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812
    from collections.abc import Iterator

_ADDRESS_PORT, _DATA_PORT = 0xCF8, 0xCFC
_COMMAND, _BARS, _CAPABILITIES, _INTERRUPT_LINE = 0x04, 0x10, 0x34, 0x3C
_BAR_COUNT = 6
_VENDOR, _MSIX = 0x09, 0x11  # kinds of capabilities
_COMMON = 1  # VIRTIO_PCI_CAP_COMMON_CFG
_MOST_CAPABILITIES = 48
# of the common configuration
_FEATURE_SELECT, _FEATURE, _CONFIG_VECTOR, _QUEUES = 0x08, 0x0C, 0x10, 0x12
_STATUS, _QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_VECTOR, _QUEUE_ENABLE = 0x14, 0x16, 0x18, 0x1A, 0x1C
_QUEUE_ADDRESSES, _AVAILABLE = range(0x20, 0x38, 4), 0x28
_ACKNOWLEDGE_DRIVER, _FEATURES_OK, _DRIVER_OK = 1 | 2, 8, 4
_GPE_STATUS, _GPE_ENABLE, _GPE_PLUGGED = 0xAFE0, 0xAFE2, 1 << 1  # PIIX4's
_PLUG_UP, _PLUG_BUS = 0xAE00, 0xAE10
_PATIENCE_S = 10.0
_RECEIVE = 64 << 10


class Panel:
    """The switches of a stopped machine: one end of a ``-qtest`` channel."""

    def __init__(self, sock: Socket, script: bytes = b"") -> None:
        self._sock = sock
        self._script = script

    def replay(self, timeout: float) -> None:
        """Do what was recorded. Raises ``HypervisorError``."""
        self.run(self._script, timeout)

    def close(self) -> None:
        """Let go of it; may be called again."""
        self._sock.close()

    def run(self, script: bytes, timeout: float) -> list[bytes]:
        """Do the lines of a script; what each one answered. Raises ``HypervisorError``."""
        wanted, answer = script.count(b"\n"), b""
        self._sock.settimeout(timeout)
        try:
            self._sock.sendall(script)
            while answer.count(b"\n") < wanted:
                data = self._sock.recv(_RECEIVE)
                if not data:
                    raise HypervisorError("QEMU hung up while its devices were set")
                answer += data
        except OSError as error:
            raise HypervisorError("QEMU's devices cannot be set", why=str(error)) from None
        lines = answer.splitlines()
        if any(not line.startswith(b"OK") for line in lines):
            raise HypervisorError("QEMU's devices cannot be set", why=repr(answer[:200]))
        return lines

    def value(self, script: str, timeout: float = _PATIENCE_S) -> int:
        """What the last line of a script read."""
        return int(self.run(script.encode(), timeout)[-1].split()[1], 16)


class Gate:
    """While it is shut, devices are plugged without the guest being told of it.

    They raise an event of ACPI's (general purpose event 1, as QEMU's docs/specs/acpi_pci_hotplug
    says), which is masked meanwhile and then forgotten. What the guest's last access to PCI was
    about is put back too, for it may be between its two halves.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._address = panel.value(f"inl {_ADDRESS_PORT:#x}\n")
        self._bus = panel.value(f"inl {_PLUG_BUS:#x}\n")
        self._enabled = panel.value(f"inb {_GPE_ENABLE:#x}\n")
        masked = self._enabled & ~_GPE_PLUGGED
        panel.run(f"outb {_GPE_ENABLE:#x} {masked:#x}\n".encode(), _PATIENCE_S)

    def open(self) -> None:
        """From now on the guest is told again, of what happens from now on."""
        self._panel.run(
            f"outl {_PLUG_BUS:#x} 0\ninl {_PLUG_UP:#x}\n"  # to read it is to take note of it
            f"outl {_PLUG_BUS:#x} {self._bus:#x}\n"
            f"outl {_ADDRESS_PORT:#x} {self._address:#x}\n"
            f"outb {_GPE_STATUS:#x} {_GPE_PLUGGED:#x}\n"
            f"outb {_GPE_ENABLE:#x} {self._enabled:#x}\n".encode(), _PATIENCE_S,
        )  # fmt: skip


def record(panel: Panel, slot: int) -> bytes:
    """The script that makes the device in a slot of the first bus what it is now.

    The guest must be stopped. Raises ``HypervisorError`` if the device is not as it must be.
    """
    device = _Device(panel, slot)
    return "".join(f"{line}\n" for line in device.lines()).encode()


class _Device:
    """A virtio device on the PCI bus, as its driver has set it up."""

    def __init__(self, panel: Panel, slot: int) -> None:
        self._panel = panel
        self._base = 1 << 31 | slot << 11
        self._common = 0

    def lines(self) -> Iterator[str]:
        """What to write to a fresh one, in this order."""
        msix, self._common = self._find()
        for number in range(_BAR_COUNT):
            at = _BARS + 4 * number
            yield from self._set(at, "l", self._config(at, "l"))
        yield from self._set(_INTERRUPT_LINE, "b", self._config(_INTERRUPT_LINE, "b"))
        yield from self._set(_COMMAND, "w", self._config(_COMMAND, "w"))
        control = self._config(msix + 2, "w")
        yield from self._set(msix + 2, "w", control)
        table = self._place(self._config(msix + 4, "l"))
        for at in range(table, table + 16 * ((control & 0x7FF) + 1), 4):
            yield f"writel {at:#x} {self._read(at, 'l'):#x}"
        yield from self._driver()

    def _find(self) -> tuple[int, int]:
        """Where the capability for interrupts is, and the address of the common configuration."""
        msix = common = 0
        at = self._config(_CAPABILITIES, "b")
        for _ in range(_MOST_CAPABILITIES):
            if not at:
                break
            kind = self._config(at, "b")
            if kind == _MSIX:
                msix = at
            elif kind == _VENDOR and self._config(at + 3, "b") == _COMMON:
                common = self._bar(self._config(at + 4, "b")) + self._config(at + 8, "l")
            at = self._config(at + 1, "b")
        if not msix or not common:
            raise HypervisorError("the file share is not a device that can be carried over")
        return msix, common

    def _driver(self) -> Iterator[str]:
        """What the driver did, in its order."""
        status = self._get(_STATUS, "b")
        if not status & _DRIVER_OK:
            raise HypervisorError("the guest has no driver for the file share", why=f"{status:#x}")
        yield self._put(_STATUS, "b", 0)
        yield self._put(_STATUS, "b", _ACKNOWLEDGE_DRIVER)
        for half in range(2):
            value = self._selected(_FEATURE_SELECT, "l", half, _FEATURE, "l")
            yield self._put(_FEATURE_SELECT, "l", half)
            yield self._put(_FEATURE, "l", value)
        yield self._put(_STATUS, "b", _ACKNOWLEDGE_DRIVER | _FEATURES_OK)
        yield self._put(_CONFIG_VECTOR, "w", self._get(_CONFIG_VECTOR, "w"))
        for number in range(self._get(_QUEUES, "w")):
            yield from self._queue(number)
        yield self._put(_STATUS, "b", status)

    def _queue(self, number: int) -> Iterator[str]:
        def get(field: int, width: str) -> int:
            return self._selected(_QUEUE_SELECT, "w", number, field, width)

        if not get(_QUEUE_ENABLE, "w"):
            return
        available = get(_AVAILABLE, "l") | get(_AVAILABLE + 4, "l") << 32
        if self._read(available + 2, "w"):
            raise HypervisorError("the file share was used before it was frozen")
        yield self._put(_QUEUE_SELECT, "w", number)
        for field, width in ((_QUEUE_SIZE, "w"), *((at, "l") for at in _QUEUE_ADDRESSES)):
            yield self._put(field, width, get(field, width))
        yield self._put(_QUEUE_VECTOR, "w", get(_QUEUE_VECTOR, "w"))
        yield self._put(_QUEUE_ENABLE, "w", 1)

    def _place(self, value: int) -> int:
        """The address that a BAR's number (its three lowest bits) and an offset mean."""
        return self._bar(value & 7) + (value & ~7)

    def _bar(self, number: int) -> int:
        at = _BARS + 4 * number
        low = self._config(at, "l")
        high = self._config(at + 4, "l") if low & 6 == 4 else 0
        return high << 32 | low & ~0xF

    def _config(self, at: int, width: str) -> int:
        where = f"outl {_ADDRESS_PORT:#x} {self._base | at & ~3:#x}"
        return self._panel.value(f"{where}\nin{width} {self._data(at)}\n")

    def _set(self, at: int, width: str, value: int) -> Iterator[str]:
        yield f"outl {_ADDRESS_PORT:#x} {self._base | at & ~3:#x}"
        yield f"out{width} {self._data(at)} {value:#x}"

    @staticmethod
    def _data(at: int) -> str:
        return f"{_DATA_PORT | at & 3:#x}"

    def _read(self, address: int, width: str) -> int:
        return self._panel.value(f"read{width} {address:#x}\n")

    def _get(self, field: int, width: str) -> int:
        return self._read(self._common + field, width)

    def _put(self, field: int, width: str, value: int) -> str:
        return f"write{width} {self._common + field:#x} {value:#x}"

    def _selected(self, select: int, kind: str, number: int, field: int, width: str) -> int:
        chosen = self._put(select, kind, number)
        return self._panel.value(f"{chosen}\nread{width} {self._common + field:#x}\n")
