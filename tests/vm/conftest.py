"""Tests in virtual machines use the fixtures of ``support.vm``."""

import os

import pytest

from support.containerd import Containerd
from support.vm import DATA, kata, own_images, own_rootfs, prepared, rootfs  # noqa: F401


@pytest.fixture
def containerd(prepared, tmp_path):  # noqa: F811 (asked for, not called)
    """A containerd; whatever it made is gone afterwards."""
    made = Containerd(str(tmp_path), DATA)
    yield made
    made.close()
    left = set(os.listdir(made.state)) - {"cache", "names", "uids"}
    assert not left
    with open("/proc/self/mounts", encoding="utf-8") as file:
        assert str(tmp_path) not in file.read()
