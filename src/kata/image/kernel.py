"""The guest's kernel out of Debian's package: its image, uncompressed, and its modules.

The one rule: the kernel is stored as the ELF file inside ``vmlinuz``. QEMU enters it by its PVH
note; the decompressor, which takes most of a boot under emulation, never runs. Format: the
kernel's Documentation/x86/boot.rst.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

from kata.errors import ImageError
from kata.image import commands, debian, kernel_modules
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.image.kernel_modules import Module, Selection

_SECTOR = 512
_OLDEST = 0x0208  # of the boot protocol: the first that says where the payload is

_DRIVERS = tuple(
    f"drivers/{kind}/"
    for kind in ("virtio", "block", "char", "md", "nvdimm", "dax", "misc", "vhost")
)
_FOREIGN_NETWORKS = tuple(
    f"drivers/net/{kind}/"
    for kind in ("ethernet", "wireless", "usb", "can", "phy", "wan", "wwan", "ieee802154")
)

_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\x00", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x28\xb5\x2f\xfd", lambda data: commands.run(["zstd", "-dc"], data=data[:-4])),
    (b"\x1f\x8b", lambda data: gzip.decompress(data[:-4])),
    (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data)),
    (b"\x5d\x00\x00", lambda data: lzma.LZMADecompressor().decompress(data)),
)


@record
class Kernel:
    """A kernel: its release (``uname -r``), its ELF image, its modules and their content."""

    release: str
    image: bytes
    selection: Selection
    modules: dict[str, bytes]


def read(deb: str, wanted: tuple[kernel_modules.Wanted, ...]) -> Kernel:
    """The kernel in a package, with the wanted modules. Raises ``ImageError`` or ``HostError``."""
    vmlinuz, release, builtin = b"", "", frozenset[str]()
    known: dict[str, Module] = {}
    content: dict[str, bytes] = {}
    for info, data in debian.members(deb, _interesting):
        if info.name.startswith("boot/vmlinuz-"):
            vmlinuz, release = data, info.name.partition("-")[2]
        elif info.name.endswith("/modules.builtin"):
            builtin = frozenset(kernel_modules.name_of(line) for line in data.decode().split())
        elif info.isreg():
            plain = kernel_modules.unpacked(info.name, data)
            module = kernel_modules.describe(info.name, plain)
            known[module.name], content[module.name] = module, plain
    if not vmlinuz or not known:
        raise ImageError(f'package "{deb}"', why="no kernel, or no modules, in it")
    selection = kernel_modules.select(wanted, known, builtin)
    chosen = {name: content[name] for name in selection.modules}
    return Kernel(release, uncompressed(vmlinuz), selection, chosen)


def _interesting(path: str) -> bool:
    if path.startswith("boot/vmlinuz-") or path.endswith("/modules.builtin"):
        return True
    return ".ko" in path and "/modules/" in path and not _is_foreign(path)


def _is_foreign(path: str) -> bool:
    """Most of a kernel package: drivers of hardware no virtual machine has."""
    inner = path.partition("/kernel/")[2]
    if inner.startswith("drivers/net/"):
        return inner.startswith(_FOREIGN_NETWORKS)
    return inner.startswith(("sound/", "drivers/")) and not inner.startswith(_DRIVERS)


def uncompressed(vmlinuz: bytes) -> bytes:
    """The ELF file inside a kernel image for x86. Raises ``ImageError`` if it is none."""
    if vmlinuz[:4] == b"\x7fELF":
        return vmlinuz
    if len(vmlinuz) < 0x250 or vmlinuz[0x202:0x206] != b"HdrS":
        raise ImageError("the kernel image", why="no boot protocol header")
    (version,) = struct.unpack_from("<H", vmlinuz, 0x206)
    offset, length = struct.unpack_from("<II", vmlinuz, 0x248)
    start = ((vmlinuz[0x1F1] or 4) + 1) * _SECTOR + offset
    payload = vmlinuz[start : start + length]
    if version < _OLDEST or len(payload) != length:
        raise ImageError("the kernel image", why="it does not say where its payload is")
    for magic, unpack in _FORMATS:
        if payload.startswith(magic):
            image = unpack(payload)
            break
    else:
        raise ImageError("the kernel image", why=f"payload of unknown format {payload[:4].hex()}")
    if image[:4] != b"\x7fELF":
        raise ImageError("the kernel image", why="its payload is no ELF file")
    return image
