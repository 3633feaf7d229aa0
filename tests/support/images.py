"""Images made in the test: layers of any shape, layouts around them, and trees compared.

The one rule: bytes are written by the standard library alone, never by the product.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import tarfile
import time

from kata.linux.syscalls import mount, umount

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
TIME = 1_700_000_000


class Archive:
    """A tar archive being written; every method gives the archive back."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self._file = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=format)

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields):
        """Add one entry; ``fields`` are those of ``tarfile.TarInfo``; xattrs as ``xattrs=``."""
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(data)
        info.mtime = TIME
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for key, value in fields.pop("xattrs", {}).items():
            text = value.decode("utf-8", "surrogateescape")
            info.pax_headers[f"SCHILY.xattr.{key}"] = text
        for key, value in fields.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"", **fields):
        """Add a regular file."""
        return self.add(name, data=data, **fields)

    def directory(self, name: str, **fields):
        """Add a directory."""
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name: str, target: str, **fields):
        """Add a symbolic link."""
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def hardlink(self, name: str, target: str, **fields):
        """Add a hard link."""
        return self.add(name, tarfile.LNKTYPE, linkname=target, **fields)

    def device(self, name: str, kind: bytes, major: int, minor: int, **fields):
        """Add a device node."""
        return self.add(name, kind, devmajor=major, devminor=minor, **fields)

    def bytes(self) -> bytes:
        """The finished archive."""
        self._tar.close()
        return self._file.getvalue()


def sha(data: bytes) -> str:
    """The SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def zipped(data: bytes) -> bytes:
    """Compressed by gzip, the same each time."""
    return gzip.compress(data, 6, mtime=0)


GZIP = ("application/vnd.oci.image.layer.v1.tar+gzip", zipped)
PLAIN = ("application/vnd.oci.image.layer.v1.tar", bytes)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Layout:
    """An OCI layout on disk, to which images are added."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.index: list[dict] = []
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        with open(f"{path}/oci-layout", "w") as file:
            file.write('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str) -> dict:
        """Write a blob; gives its descriptor."""
        digest = sha(data)
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, value, media_type: str) -> dict:
        """Write a JSON blob."""
        return self.blob(json.dumps(value).encode(), media_type)

    def image(self, layers, tag: str = "latest", *, how=GZIP, platform=None, change=None, **config):
        """Add an image of plain archives; ``change`` may alter manifest and configuration."""
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{sha(data)}" for data in layers]}
        whole = {"architecture": ARCHITECTURE, "os": "linux", "config": config, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "layers": [self.blob(how[1](data), how[0]) for data in layers],
        }
        if change:
            change(manifest, whole)
        kind = "application/vnd.oci.image.config.v1+json"
        manifest.setdefault("config", self.document(whole, kind))
        descriptor = self.document(manifest, MANIFEST)
        if platform:
            descriptor["platform"] = dict(zip(("os", "architecture"), platform, strict=True))
        if tag:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
        self.index.append(descriptor)
        self.write()
        return descriptor

    def write(self) -> None:
        """Write the index."""
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.index}
        with open(f"{self.path}/index.json", "w") as file:
            json.dump(value, file)

    @property
    def reference(self) -> str:
        """What to give to ``kata``."""
        return f"oci:{self.path}"


def small_root() -> bytes:
    """A layer with little in it."""
    archive = Archive().directory("etc").file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    return archive.file("etc/group", b"root:x:0:\n").file("hello", b"hello\n").bytes()


@contextlib.contextmanager
def mounted(layers, where: str):
    """EROFS files mounted, and over each other as overlayfs has them when there are several."""
    points = []
    try:
        for number, layer in enumerate(layers):
            point = f"{where}/m{number}"
            os.makedirs(point)
            _loop_mount(layer, point)
            points.append(point)
        if len(points) == 1:
            yield points[0]
            return
        top = f"{where}/all"
        os.makedirs(top)
        mount("overlay", top, "overlay", 1, f"lowerdir={':'.join(reversed(points))}")
        points.append(top)
        yield top
    finally:
        for point in reversed(points):
            umount(point)


def _loop_mount(layer: str, point: str) -> None:
    """Mount a file; loop devices are shared with the whole machine, so they may run out briefly."""
    for attempt in range(50):
        done = subprocess.run(
            ["mount", "-t", "erofs", "-o", "loop,ro", layer, point],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
        time.sleep(0.1 * (attempt > 0))
    raise AssertionError(done.stderr.decode())


def snapshot(root: str, *, ignore=()) -> dict[str, tuple]:
    """Every path of a tree and all that can be known of it; hard links by who shares an inode."""
    found, inodes = {}, {}
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in (".", *files, *[d for d in directories if os.path.islink(f"{directory}/{d}")]):
            path = os.path.normpath(f"{directory}/{name}")
            short = os.path.relpath(path, root)
            if short in ignore:
                continue
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                inodes.setdefault((info.st_dev, info.st_ino), []).append(short)
            found[short] = (
                oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, _content(path, info),
                tuple(sorted((n, xattr(path, n)) for n in attributes(path))),
            )  # fmt: skip
    shared = [tuple(sorted(paths)) for paths in inodes.values() if len(paths) > 1]
    found["hard links"] = tuple(sorted(shared))
    return found


def attributes(path: str) -> list[str]:
    """The names of the extended attributes of the path itself."""
    return os.listxattr(path, follow_symlinks=False)


def xattr(path: str, name: str) -> bytes:
    """An extended attribute of the path itself."""
    return os.getxattr(path, name, follow_symlinks=False)


def _content(path: str, info: os.stat_result):
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            return sha(file.read())
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(path)
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        return (os.major(info.st_rdev), os.minor(info.st_rdev))
    return None
