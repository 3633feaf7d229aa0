"""Parts of the guest image builder that need nothing: packages, kernel images, the tree."""

import gzip
import lzma
import struct

import pytest

from kata.errors import HostError, ImageError
from kata.image import commands, debian, guest_tree, kernel
from kata.image.kernel_modules import Module, Selection

SHOW = """\
Package: linux-image-amd64
Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)

Package: python3-minimal
Pre-Depends: python3.11-minimal (>= 3.11.2-1~)
Depends: dpkg (>= 1.13.20)
"""


def test_release_is_read_from_the_metapackages(monkeypatch):
    """Kernel and Python are those the release's metapackages depend on."""
    monkeypatch.setattr(commands, "run", lambda *a, **k: SHOW.encode())
    assert debian.release() == ("linux-image-6.1.0-56-amd64", "3.11")


def test_a_release_without_them_is_an_error(monkeypatch):
    """Metapackages that depend on nothing known are an error."""
    monkeypatch.setattr(commands, "run", lambda *a, **k: b"Package: x\nDepends: y\n")
    with pytest.raises(HostError, match="linux-image-amd64"):
        debian.release()


def test_index_lines(monkeypatch):
    """What apt prints of a package becomes its name, version, size and digest."""
    digest = "a" * 64
    line = f"'http://x/libc6_1%3a2-3_amd64.deb' libc6_1%3a2-3_amd64.deb 42 SHA256:{digest}\n"
    monkeypatch.setattr(commands, "run", lambda *a, **k: line.encode())
    (package,) = debian.available(["libc6"])
    assert (package.name, package.version, package.size) == ("libc6", "1:2-3", 42)
    assert package.sha256 == digest


def test_an_index_without_digests_is_refused(monkeypatch):
    """A package whose digest is not a SHA-256 is not taken."""
    line = b"'http://x/a_1_amd64.deb' a_1_amd64.deb 42 MD5Sum:00\n"
    monkeypatch.setattr(commands, "run", lambda *a, **k: line)
    with pytest.raises(HostError, match="no size and SHA-256"):
        debian.available(["a"])


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libc.so.6", "libc6"),
        ("ld-linux-x86-64.so.2", "libc6"),
        ("libz.so.1", "zlib1g"),
        ("libffi.so.8", "libffi8"),
        ("libssl.so.3", "libssl3"),
        ("libpng16.so.16", "libpng16-16"),
    ],
)
def test_library_packages(soname, package):
    """The package of a library follows from its soname, by Debian's policy."""
    assert debian.library_packages(soname)[0] == package


def vmlinuz(payload: bytes, version: int = 0x020F) -> bytes:
    """A kernel image for x86 around a payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x208] = b"HdrS" + struct.pack("<H", version)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + b"decompressor....."[:16] + payload + b"tail"


ELF = b"\x7fELF" + b"kernel" * 99
SIZE = struct.pack("<I", len(ELF))


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, lambda data: data])
def test_the_kernel_is_taken_out_of_its_image(pack):
    """The ELF file inside comes out, for each compression; the size behind it is no part of it."""
    payload = pack(ELF) + SIZE
    if payload[:4] == b"\x7fELF":
        assert kernel.uncompressed(payload) == payload
    else:
        assert kernel.uncompressed(vmlinuz(payload)) == ELF


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"MZ", "no boot protocol"),
        (vmlinuz(gzip.compress(ELF) + SIZE, version=0x0201), "where its payload is"),
        (vmlinuz(b"????????"), "unknown format"),
        (vmlinuz(gzip.compress(b"no kernel") + SIZE), "no ELF file"),
        (vmlinuz(gzip.compress(ELF) + SIZE)[:1050], "where its payload is"),
    ],
)
def test_other_images_are_refused(image, why):
    """What is no kernel image is an error that says why."""
    with pytest.raises(ImageError, match=why):
        kernel.uncompressed(image)


def test_modules_of_the_tree():
    """Module files stand unpacked below /lib/modules; the boot list and the table name them."""
    module = Module("a_b", "lib/modules/6.1/kernel/fs/a-b.ko.xz", (), ())
    selection = Selection({"a_b": module}, ("a_b",), {"a_b": ()})
    entries = {e.path: e.data for e in guest_tree.modules(selection, "6.1", {"a_b": b"elf"})}
    assert entries == {
        "lib/modules/6.1/kernel/fs/a-b.ko": b"elf",
        "etc/kata/modules": b"/lib/modules/6.1/kernel/fs/a-b.ko\n",
        "etc/kata/modules.table": b"a_b /lib/modules/6.1/kernel/fs/a-b.ko -\n",
    }


def test_init_starts_the_agent():
    """The first program is the guest's own interpreter, alone, on our package."""
    entry = guest_tree.init("usr/bin/python3.11", "usr/lib/python3.11")
    assert entry.data.startswith(b"#!/usr/bin/python3.11 -IS\n")
    assert entry.mode & 0o111
    compile(entry.data, "init", "exec")


def test_libraries_stand_where_the_loader_looks():
    """The loader has its fixed place; libraries stand together."""
    assert guest_tree.library_path("ld-linux-x86-64.so.2") == "lib64/ld-linux-x86-64.so.2"
    assert guest_tree.library_path("libz.so.1") == "lib/x86_64-linux-gnu/libz.so.1"
