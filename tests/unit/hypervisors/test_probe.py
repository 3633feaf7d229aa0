"""Finding QEMU, and choosing what runs its guests."""

import os

import pytest

from kata.errors import HostError, HypervisorError
from kata.hypervisors.qemu import probe
from kata.machine.description import Machine
from kata.wire.record import replace

MACHINE = Machine(kernel="/k", initrd="/i", image_digest="d", command_line="")


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "qemu-system-x86_64"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def choose(program, cache, boot, machine=MACHINE, wanted="auto"):
    return probe.choose(machine, program, str(cache), wanted=wanted, boot=boot)


def works(_accelerator):
    pass


def hangs(_accelerator):
    raise HypervisorError("the guest did not boot to its agent", why="no answer")


def never(_accelerator):
    raise AssertionError("a guest was booted")


@pytest.fixture
def device(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "KVM_DEVICE", str(tmp_path / "kvm"))
    (tmp_path / "kvm").write_text("")


def test_the_program_is_found_on_the_path(program, monkeypatch):
    """The first QEMU of the PATH is taken; a configured one goes before."""
    monkeypatch.setenv("PATH", f"relative:{os.path.dirname(program)}:/usr/bin")
    assert probe.locate("") == program
    assert probe.locate("/bin/sh") == "/bin/sh"


def test_no_qemu_says_how_to_get_one(monkeypatch):
    """Without QEMU the error names the command that installs it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(probe, "_PLACES", ())
    with pytest.raises(HostError, match="not installed") as caught:
        probe.locate("")
    assert "apt-get install" in caught.value.hint


def test_a_configured_program_that_is_none_is_named(tmp_path):
    """A missing file, a directory and a file that cannot be executed are refused by name."""
    plain = tmp_path / "plain"
    plain.write_text("")
    for path in (str(tmp_path / "missing"), str(tmp_path), str(plain)):
        with pytest.raises(HostError, match=path):
            probe.locate(path)


def test_no_device_no_attempt(program, tmp_path, monkeypatch):
    """Without /dev/kvm no guest is booted."""
    monkeypatch.setattr(probe, "KVM_DEVICE", str(tmp_path / "none"))
    assert choose(program, tmp_path, never).accelerator == "tcg"


@pytest.mark.usefixtures("device")
def test_a_useless_device_is_found_out_and_remembered(program, tmp_path):
    """A device with which no guest boots is not used; the reason is kept with the answer."""
    first = choose(program, tmp_path, hangs)
    assert first.accelerator == "tcg"
    assert "no guest boots with it: the guest did not boot" in first.reason
    again = choose(program, tmp_path, never)
    assert again == replace(first, cached=True)


@pytest.mark.usefixtures("device")
def test_what_the_answer_depends_on_asks_anew(program, tmp_path):
    """Another guest image, or another QEMU, has to boot once again."""
    assert choose(program, tmp_path, works).accelerator == "kvm"
    other = replace(MACHINE, image_digest="e")
    assert choose(program, tmp_path, hangs, machine=other).accelerator == "tcg"
    os.utime(program, ns=(1, 1))
    assert not choose(program, tmp_path, works).cached


@pytest.mark.usefixtures("device")
def test_a_damaged_answer_is_no_answer(program, tmp_path):
    """A cache file cut short is asked again, and an unwritable cache does no harm."""
    choose(program, tmp_path, works)
    [path] = tmp_path.glob("accelerator-*.json")
    path.write_text('{"accel')
    assert choose(program, tmp_path, hangs).accelerator == "tcg"
    assert choose(program, tmp_path / "kvm" / "x", works).accelerator == "kvm"


def test_what_was_asked_for_is_taken(program, tmp_path):
    """kvm or tcg in the configuration is not second-guessed."""
    assert choose(program, tmp_path, never, wanted="kvm").accelerator == "kvm"
