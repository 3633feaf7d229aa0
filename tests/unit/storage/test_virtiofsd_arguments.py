"""The virtio-fs daemon's command line as text, and which daemon a program is."""

from __future__ import annotations

import os

import pytest

from kata.errors import HostError
from kata.storage.virtiofsd import (
    RUST,
    C,
    Serving,
    find,
    kind_from_version,
    kind_of,
    virtiofsd_arguments,
)


def test_arguments_of_the_daemon_in_c():
    """QEMU's own daemon: options by -o, the word for no caching is none."""
    serving = Serving("/shared", 3, cache="never", extra=("-d",))
    assert " ".join(virtiofsd_arguments(C, "/v", serving)) == (
        "/v -f --fd=3 --thread-pool-size=0 --rlimit-nofile=0 -o source=/shared,sandbox=chroot,"
        "cache=none,xattr,announce_submounts,no_posix_lock,no_flock,log_level=warn -d"
    )


def test_arguments_of_the_daemon_in_rust():
    """The daemon in Rust: an option for each."""
    assert " ".join(virtiofsd_arguments(RUST, "/v", Serving("/shared", 3, threads=2))) == (
        "/v --fd=3 --shared-dir=/shared --sandbox=chroot --cache=auto --xattr"
        " --announce-submounts --seccomp=kill --thread-pool-size=2 --rlimit-nofile=0"
        " --log-level=warn"
    )


def test_what_is_not_trusted_by_either():
    """A coherent share: in C the times of trust are nothing, in Rust there is no cache."""
    serving = Serving("/shared", 3, cache="coherent")
    assert ",cache=auto,timeout=0," in " ".join(virtiofsd_arguments(C, "/v", serving))
    assert "--cache=never" in virtiofsd_arguments(RUST, "/v", serving)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("virtiofsd version 7.2.22 (Debian 1:7.2)\nCopyright … the QEMU Project\n", C),
        ("virtiofsd 1.13.2\n", RUST),
        ("virtiofsd backend 1.4.0\n", RUST),
        ("QEMU emulator version 7.2\n", ""),
        ("", ""),
    ],
)
def test_the_daemon_is_known_by_what_it_says(text, kind):
    """--version tells the two daemons apart."""
    assert kind_from_version(text) == kind


def fake(path, text):
    path.write_text(f"#!/bin/sh\necho ran >> {path}.ran\necho '{text}'\n")
    path.chmod(0o755)
    return str(path)


def test_the_answer_is_kept_as_long_as_the_program_is_the_same(tmp_path):
    """The program is asked once; a changed program is asked again."""
    program, memory = fake(tmp_path / "v", "virtiofsd 1.13.2"), str(tmp_path / "kept" / "kind")
    assert [kind_of(program, memory) for _ in range(3)] == [RUST] * 3
    assert (tmp_path / "v.ran").read_text() == "ran\n"
    os.utime(program, ns=(1, 1))
    assert kind_of(program, memory) == RUST
    assert (tmp_path / "v.ran").read_text() == "ran\nran\n"


def test_a_program_that_is_no_daemon_is_refused(tmp_path):
    """Something else at the daemon's place is an error that names it."""
    program = fake(tmp_path / "v", "hello")
    with pytest.raises(HostError, match='v"') as caught:
        kind_of(program)
    assert "virtiofsd" in caught.value.hint


def test_find_takes_the_configured_one_or_the_first_there_is(tmp_path):
    """No daemon is an error that says what to install."""
    program = fake(tmp_path / "v", "")
    assert find(program, ()) == program
    assert find("", ("/nowhere", program)) == program
    with pytest.raises(HostError, match="is not a program"):
        find("/nowhere")
    with pytest.raises(HostError) as caught:
        find("", ("/nowhere",))
    assert "install virtiofsd" in caught.value.hint
