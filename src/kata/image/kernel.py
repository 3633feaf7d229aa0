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
    release, vmlinuz, known, builtin = _survey(deb)
    selection = kernel_modules.select(wanted, known, builtin)
    names = {module.path: name for name, module in selection.modules.items()}
    content = {
        names[info.name]: kernel_modules.unpacked(info.name, data)
        for info, data in debian.members(deb, names.__contains__)
    }
    return Kernel(release, uncompressed(vmlinuz), selection, content)


def _survey(deb: str) -> tuple[str, bytes, dict[str, Module], frozenset[str]]:
    vmlinuz, release, known, builtin = b"", "", {}, frozenset[str]()
    for info, data in debian.members(deb, _interesting):
        if info.name.startswith("boot/vmlinuz-"):
            vmlinuz, release = data, info.name.partition("-")[2]
        elif info.name.endswith("/modules.builtin"):
            lines = data.decode().split()
            builtin = frozenset(kernel_modules.name_of(line) for line in lines)
        elif info.isreg():
            module = kernel_modules.describe(info.name, kernel_modules.unpacked(info.name, data))
            known[module.name] = module
    if not vmlinuz or not known:
        raise ImageError(f'package "{deb}"', why="no kernel, or no modules, in it")
    return release, vmlinuz, known, builtin


def _interesting(path: str) -> bool:
    if path.startswith("boot/vmlinuz-") or path.endswith("/modules.builtin"):
        return True
    return ".ko" in path and "/modules/" in path and not _is_foreign(path)


def _is_foreign(path: str) -> bool:
    """Most of a kernel package: drivers of hardware no virtual machine has."""
    inner = path.partition("/kernel/")[2]
    return inner.startswith(("sound/", "drivers/")) and not inner.startswith(
        ("drivers/virtio/", "drivers/block/", "drivers/net/", "drivers/char/", "drivers/md/",
         "drivers/nvdimm/", "drivers/dax/", "drivers/misc/", "drivers/vhost/")
    )  # fmt: skip


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
