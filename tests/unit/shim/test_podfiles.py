"""The files of a pod that has no container for its sandbox."""

import os

import pytest

from kata.shim import podfiles
from kata.wire.containerd_sandbox import DnsConfig, PodConfig


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([], [], []), b""),
        ((["1.1.1.1", "2.2.2.2"], [], []), b"nameserver 1.1.1.1\nnameserver 2.2.2.2\n"),
        ((["1.1.1.1"], ["a.b", "c"], ["x", "y:2"]),
         b"search a.b c\nnameserver 1.1.1.1\noptions x y:2\n"),
    ],
)  # fmt: skip
def test_the_resolver_s_file(given, text):
    """As containerd writes it."""
    assert podfiles.resolver(*given) == text


def test_names_that_nobody_gave(tmp_path):
    """They are the host's."""
    podfiles.write(str(tmp_path), PodConfig(dns_config=DnsConfig()))
    assert (tmp_path / "hostname").read_text() == f"{os.uname().nodename}\n"
    for name in ("hosts", "resolv.conf"):
        with open(f"/etc/{name}", "rb") as file:
            assert (tmp_path / name).read_bytes() == file.read()


def test_what_containerd_mounts_goes_before(tmp_path):
    """Only what it left out is added; shared memory takes the place of the container's own."""
    podfiles.write(str(tmp_path), PodConfig(hostname="h"))
    os.makedirs(tmp_path / "shm", exist_ok=True)
    own = {"destination": "/etc/hosts/", "type": "bind", "source": "/mine"}
    memory = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}
    spec = {"root": {"readonly": True}, "mounts": [own, memory]}
    podfiles.add_mounts(spec, str(tmp_path))
    found = {m["destination"]: (m["source"], m.get("options", [])[-1:]) for m in spec["mounts"]}
    assert found == {
        "/etc/hosts/": ("/mine", []), "/etc/hostname": (f"{tmp_path}/hostname", ["ro"]),
        "/etc/resolv.conf": (f"{tmp_path}/resolv.conf", ["ro"]),
        "/dev/shm": (f"{tmp_path}/shm", ["size=67108864"]),
    }  # fmt: skip


def test_without_files_nothing_is_added(tmp_path):
    """A sandbox of an older shim."""
    spec = {}
    podfiles.add_mounts(spec, str(tmp_path))
    assert spec == {"mounts": []}
