"""The file share that is carried over a freeze: it serves files, and the guest saw no plugging."""

import json
import os
import shutil
import subprocess

import pytest

from support.source import CHECKOUT

WORDS = "cat /word; echo made > /made; cat /sys/firmware/acpi/interrupts/gpe01"
SPEC = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["/bin/busybox", "sh", "-c", WORDS], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "capabilities": {},
    },
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/sys", "type": "sysfs", "source": "sysfs"}],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path):
    """A root file system with a word in it."""
    root = tmp_path / "rootfs"
    for name in ("bin", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat"):
        os.symlink("busybox", root / "bin" / applet)
    (root / "word").write_text("served\n")
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    return tmp_path


def test_a_restored_share_serves_and_its_plugging_is_not_noticed(prepared, bundle):
    """Two copies of one template, each with a daemon of its own; ACPI's event is not raised."""
    (bundle / "settings.toml").write_text(f'[runtime]\ndata_root = "{prepared}"\n')
    for number in range(2):
        done = subprocess.run(
            [f"{CHECKOUT}/bin/kata-runtime", "--config", str(bundle / "settings.toml"),
             "--root", str(bundle / "state"), "run", "--bundle", str(bundle), f"wired-{number}"],
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        word, event = done.stdout.splitlines()
        assert word == "served"
        assert event.split()[0] == "0"
        assert (bundle / "rootfs/made").read_text() == "made\n"
        os.unlink(bundle / "rootfs/made")
