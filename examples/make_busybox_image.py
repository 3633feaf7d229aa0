#!/usr/bin/python3
"""Make a small container image out of the distribution's static busybox: an OCI layout directory.

    make_busybox_image.py DIRECTORY [BUSYBOX]

The image has one layer: busybox with a link for each of its applets, and the few files that
programs look for. It is the same to the byte whenever busybox is. Plain standard library; the
formats are those of the OCI image specification.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

BUSYBOX = "/bin/busybox"
NAME = "latest"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700,
    "run": 0o755, "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "var": 0o755,
}  # fmt: skip
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=busybox\nNAME="busybox"\nPRETTY_NAME="busybox, a small example"\n',
}
MEDIA = "application/vnd.oci.image."


def layer(busybox: str) -> bytes:
    """The layer, an uncompressed tar archive."""
    applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in DIRECTORIES.items():
            add(tar, name, tarfile.DIRTYPE, mode)
        for name, text in FILES.items():
            add(tar, name, tarfile.REGTYPE, 0o644, text.encode())
        with open(busybox, "rb") as file:
            add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, file.read())
        for applet in sorted(set(applets.stdout.split()) - {"busybox"}):
            add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
    return out.getvalue()


def add(
    tar: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", link: str = ""
) -> None:
    """Add one file, owned by root, with no time."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
    tar.addfile(info, io.BytesIO(data))


class Layout:
    """An OCI layout directory being written."""

    def __init__(self, path: str) -> None:
        self.path = path
        if os.path.lexists(path) and not os.path.exists(f"{path}/oci-layout"):
            sys.exit(f'"{path}" exists and is no OCI layout')
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(f"{path}/blobs/sha256")

    def blob(self, kind: str, data: bytes) -> dict[str, object]:
        """Store bytes; gives their descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": MEDIA + kind, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, kind: str, value: object) -> dict[str, object]:
        """Store a JSON document; gives its descriptor."""
        return self.blob(kind, json.dumps(value).encode())

    def file(self, name: str, value: object) -> None:
        """Write one of the layout's own files."""
        with open(f"{self.path}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file)


def make(path: str, busybox: str = BUSYBOX) -> None:
    """Make the image at ``path``; what was there is replaced."""
    tar = layer(busybox)
    machine = os.uname().machine
    configuration = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    layout = Layout(path)
    manifest = layout.document(
        "manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}manifest.v1+json",
            "config": layout.document("config.v1+json", configuration),
            "layers": [layout.blob("layer.v1.tar+gzip", gzip.compress(tar, mtime=0))],
        },
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": NAME}
    layout.file("oci-layout", {"imageLayoutVersion": "1.0.0"})
    layout.file("index.json", {"schemaVersion": 2, "manifests": [manifest]})


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY [BUSYBOX]")
    if not os.access(sys.argv[2] if len(sys.argv) > 2 else BUSYBOX, os.X_OK):
        sys.exit("there is no busybox; hint: apt-get install busybox-static")
    make(*sys.argv[1:])
