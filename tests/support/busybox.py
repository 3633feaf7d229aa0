"""A small root file system out of the distribution's static busybox."""

from __future__ import annotations

import os
import shutil
import subprocess

from support.host import need_tool

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
ann:x:1000:1000::/home/ann:/bin/sh
"""
GROUP = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nann:x:1000:\nstaff:x:50:ann\n"
DIRECTORIES = ("bin", "dev", "etc", "home/ann", "proc", "root", "sys", "usr/bin", "var")


def make(path: str) -> str:
    """Make the tree at ``path``: every applet in /bin, users root, nobody and ann."""
    busybox = need_tool("busybox")
    for name in DIRECTORIES:
        os.makedirs(f"{path}/{name}")
    os.mkdir(f"{path}/tmp")
    os.chmod(f"{path}/tmp", 0o1777)
    shutil.copy(busybox, f"{path}/bin/busybox")
    applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{path}/bin/{applet}")
    for name, text in (("passwd", PASSWD), ("group", GROUP)):
        with open(f"{path}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    os.chown(f"{path}/home/ann", 1000, 1000)
    return path
