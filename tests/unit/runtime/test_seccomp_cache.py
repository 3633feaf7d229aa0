"""Filters are compiled once; what was kept is used only if it can be trusted."""

import json
import os
import subprocess

import pytest

from kata.errors import InvalidInput, Unsupported
from kata.oci.defaults import DEFAULT_CAPABILITIES
from kata.runtime import seccomp

SOURCE = os.path.join(os.path.dirname(__file__), "../../../src")
KERNEL = "6.1.0-32-amd64"


@pytest.fixture
def compilations(monkeypatch):
    """How often something was compiled."""
    calls = []
    real = seccomp._compiled

    def counting(filter_):
        calls.append(filter_)
        return real(filter_)

    monkeypatch.setattr(seccomp, "_compiled", counting)
    return calls


def get(root, option="", capabilities=DEFAULT_CAPABILITIES, kernel=KERNEL):
    return seccomp.container_filter(option, capabilities, kernel, data_root=str(root))


def test_compiled_once(tmp_path, compilations):
    """The second time the kept filter is given, the same one, privately kept."""
    first, second = get(tmp_path), get(tmp_path)
    assert (first.bpf, first.flags) == (second.bpf, second.flags)
    assert len(first.bpf) % 8 == 0
    assert len(compilations) == 1
    (name,) = os.listdir(tmp_path / "cache/seccomp")
    status = os.stat(tmp_path / "cache/seccomp" / name)
    assert status.st_mode & 0o777 == 0o600


def test_everything_counts(tmp_path, compilations, monkeypatch):
    """Other capabilities, another kernel, another library: another filter."""
    get(tmp_path)
    get(tmp_path, capabilities=("CAP_SYS_ADMIN",))
    get(tmp_path, kernel="6.12.1")
    monkeypatch.setattr(seccomp, "_library_stamp", lambda: "another")
    get(tmp_path)
    assert len(compilations) == 4
    get(tmp_path, capabilities=tuple(reversed(DEFAULT_CAPABILITIES)))
    assert len(compilations) == 4


@pytest.mark.parametrize("damage", ["flip", "short", "empty", "mode", "link"])
def test_an_untrusted_copy_is_made_again(tmp_path, compilations, damage):
    """A damaged filter, one that others could have written, and a link are not used."""
    good = get(tmp_path)
    (name,) = os.listdir(tmp_path / "cache/seccomp")
    path = tmp_path / "cache/seccomp" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage in ("short", "empty"):
        path.write_bytes(data[:-8] if damage == "short" else b"")
    elif damage == "mode":
        path.chmod(0o620)
    else:
        path.rename(tmp_path / "x")
        path.symlink_to(tmp_path / "x")
    assert get(tmp_path).bpf == good.bpf
    assert len(compilations) == 2


def test_nowhere_to_keep_it(compilations):
    """Without a place to keep it the filter is made all the same."""
    assert get("/proc/none").bpf
    assert len(compilations) == 1


def test_profiles_from_files(tmp_path, compilations):
    """A file's content decides; unconfined is no filter; what cannot be read is named."""
    profile = tmp_path / "p.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    first = get(tmp_path, str(profile))
    assert get(tmp_path, str(profile)).bpf == first.bpf
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_LOG", "syscalls": []}))
    assert get(tmp_path, str(profile)).bpf != first.bpf
    assert len(compilations) == 2
    assert get(tmp_path, "unconfined") is None
    profile.write_text("{}")
    assert get(tmp_path, str(profile)) is None
    with pytest.raises(InvalidInput, match='seccomp profile "/none": no such file'):
        get(tmp_path, "/none")
    with pytest.raises(InvalidInput, match="is a directory"):
        get(tmp_path, str(tmp_path))
    profile.write_text(" " * ((1 << 20) + 1))
    with pytest.raises(InvalidInput, match="larger than"):
        get(tmp_path, str(profile))


def test_filters_of_a_configuration(tmp_path, compilations):
    """A config.json's own filter is kept by its content; listeners are refused."""
    given = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    first = seccomp.spec_filter(given, data_root=str(tmp_path))
    assert seccomp.spec_filter(dict(given), data_root=str(tmp_path)).bpf == first.bpf
    assert len(compilations) == 1
    with pytest.raises(Unsupported):
        seccomp.spec_filter({"defaultAction": "SCMP_ACT_NOTIFY"}, data_root=str(tmp_path))


def test_few_are_kept(tmp_path, monkeypatch):
    """Only so many filters are kept; the oldest go first."""
    monkeypatch.setattr(seccomp, "_KEEP", 2)
    for kernel in ("6.1", "6.2", "6.3"):
        get(tmp_path, kernel=kernel)
    assert len(os.listdir(tmp_path / "cache/seccomp")) == 2


def test_the_kept_way_is_light(tmp_path):
    """A kept filter needs neither ctypes nor the profile's parser."""
    get(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kata.runtime import seccomp; "
        f"assert seccomp.container_filter('', {DEFAULT_CAPABILITIES!r}, {KERNEL!r}, "
        f"data_root={str(tmp_path)!r}); "
        "assert not {'ctypes', 'json', 're', 'kata.oci.schema', 'hashlib'} & set(sys.modules)"
    )
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", script], check=True)
