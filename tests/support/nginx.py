"""An image of Debian's nginx: packages fetched by apt, unpacked, never installed.

The one rule: packages are kept between runs, beside the guest's, and checked by apt's digests.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from kata.image import debian
from support.vm import DATA

IMAGE = "localhost/nginx"
PACKAGES = ("nginx", "nginx-common", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g")
SETTINGS = """\
daemon off;
worker_processes 2;
error_log stderr;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; root /srv; location /host { return 200 "$hostname\\n"; } }
}
"""
CONFIG = {"Cmd": ["/usr/sbin/nginx"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}


def make(path: str) -> str:
    """Make the tree at ``path``: nginx, what it needs, and a page."""
    cache = f"{DATA}/packages"
    os.makedirs(cache, exist_ok=True)
    packages = debian.available(PACKAGES)
    debian.fetch(packages, cache, lambda _: None)
    os.makedirs(path)
    for package in packages:
        archive = f"{cache}/{package.file}"
        subprocess.run(["dpkg-deb", "-x", archive, path], check=True)
    for name in ("usr/share/doc", "usr/share/man", "usr/lib/x86_64-linux-gnu/gconv"):
        shutil.rmtree(f"{path}/{name}", ignore_errors=True)
    for name in (
        "run",
        "srv",
        "tmp",
        "dev",
        "proc",
        "sys",
        "var/log/nginx",
        "var/lib/nginx",
        "etc",
    ):
        os.makedirs(f"{path}/{name}", exist_ok=True)
    for name, text in (
        ("etc/nginx/nginx.conf", SETTINGS),
        ("srv/index.html", "a page of nginx\n"),
        (
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    ):
        with open(f"{path}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    with open(f"{path}/srv/big", "wb") as file:
        file.write(b"0123456789abcdef" * (1 << 16))
    return path
