"""Templates on disk: found only when complete and unchanged, collected when stale."""

import json
import os

import pytest

from kata.errors import HostError
from kata.machine.description import Machine
from kata.runtime.template import Templates, _files, _remove
from kata.wire.record import replace

MACHINE = Machine(kernel="/k", initrd="/i", image_digest="d", command_line="", memory_mib=256)


@pytest.fixture
def templates(tmp_path):
    program = tmp_path / "qemu"
    program.write_text("qemu")
    return Templates(str(tmp_path / "templates"), program=str(program), uid=1000)


@pytest.fixture
def made(templates, tmp_path):
    """A template's directory, as one that was made looks."""
    kernel = tmp_path / "kernel"
    kernel.write_text("")
    key = templates.key(MACHINE)
    directory = f"{templates.root}/{key}"
    os.makedirs(directory)
    with open(f"{directory}/memory", "wb") as file:
        file.truncate(256 << 20)
    with open(f"{directory}/state", "wb") as file:
        file.write(os.urandom(5000))
    manifest = {
        **json.loads(json.dumps(templates._facts(MACHINE))), **_files(directory), "key": key,
        "made_ns": 1, "kernel": str(kernel), "initrd": str(kernel), "layers": [],
    }  # fmt: skip
    with open(f"{directory}/manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file)
    return directory


def test_a_sound_template_is_found(templates, made):
    """What was made is found, for private and shared memory alike, and opens read-only."""
    template = templates.find(replace(MACHINE, shared_memory=True))
    assert template.directory == made
    frozen = template.open()
    with pytest.raises(OSError, match="Bad file"):
        os.write(frozen.memory, b"x")
    frozen.close()


def test_a_private_copy_is_a_file_of_its_own(templates, made):
    """With a file share the machine gets an empty file, and the template to fill it from."""
    frozen = templates.find(MACHINE).open(private_copy=True)
    assert os.fstat(frozen.source).st_ino == os.stat(f"{made}/memory").st_ino
    assert os.fstat(frozen.memory).st_size == 0
    os.write(frozen.memory, b"x")
    frozen.close()


def damage_state_byte(directory):
    with open(f"{directory}/state", "r+b") as file:
        file.seek(2500)
        byte = file.read(1)
        file.seek(2500)
        file.write(bytes([byte[0] ^ 1]))


def damage_state_size(directory):
    os.truncate(f"{directory}/state", 4999)


def damage_memory_size(directory):
    os.truncate(f"{directory}/memory", 255 << 20)


def damage_memory_content(directory):
    with open(f"{directory}/memory", "r+b") as file:
        file.write(b"x")


def damage_memory_copy(directory):
    os.rename(f"{directory}/memory", f"{directory}/old")
    with open(f"{directory}/memory", "wb") as file:
        file.truncate(256 << 20)


def damage_manifest(directory):
    os.truncate(f"{directory}/manifest.json", 100)


def damage_directory(directory):
    os.unlink(f"{directory}/state")
    os.makedirs(f"{directory}/state/x")


def damage_link(directory):
    os.rename(directory, f"{directory}-moved")
    os.symlink(f"{directory}-moved", directory)
    os.unlink(f"{directory}/state")


def damage_missing(directory):
    os.unlink(f"{directory}/state")


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen(templates, made, damage):
    """A flipped byte, a truncated, replaced or missing file: the template is not used."""
    damage(made)
    assert templates.find(MACHINE) is None
    [row] = templates.status()
    assert row["sound"] is False
    assert row["flaw"]
    assert templates.collect() == [row["key"]]
    assert templates.status() == []


@pytest.mark.usefixtures("made")
def test_the_key_is_all_that_the_guest_sees(templates):
    """Any difference a guest could see, another QEMU or other modules, is another template."""
    keys = {
        templates.key(m)
        for m in (
            MACHINE, replace(MACHINE, memory_mib=512), replace(MACHINE, command_line="x"),
            replace(MACHINE, image_digest="e"), replace(MACHINE, machine_type="q35"),
            replace(MACHINE, block_slots=8), replace(MACHINE, vcpus=2),
        )
    }  # fmt: skip
    assert len(keys) == 7
    program = templates._program
    more = Templates(templates.root, program=program, uid=1000, modules=["dummy"])
    assert more.key(MACHINE) not in keys
    os.utime(program, ns=(1, 1))
    assert templates.key(MACHINE) not in keys


def test_what_nobody_can_ask_for_is_collected(templates, made):
    """A sound template stays; once QEMU has changed it is stale and goes."""
    assert templates.collect() == []
    os.utime(templates._program, ns=(1, 1))
    [row] = templates.status()
    assert row["current"] is False
    assert templates.collect() == [os.path.basename(made)]
    assert os.listdir(templates.root) == []


def test_half_made_ones_are_shown_and_removed(templates):
    """What a killed maker left is listed, and named when it is removed."""
    left = f"{templates.root}/.new-0123456789abcdef"
    os.makedirs(left)
    [row] = templates.status()
    assert (row["key"], row["flaw"]) == (os.path.basename(left), "half made")
    lock = templates._lock("0123456789abcdef", print)
    [row] = templates.status()
    assert row["flaw"] == "being made"
    assert templates.collect() == []
    os.close(lock)
    assert templates.collect() == [os.path.basename(left)]
    assert os.listdir(templates.root) == []


@pytest.mark.usefixtures("made")
def test_one_that_cannot_be_removed_keeps_no_other(templates, monkeypatch):
    """The others go all the same, and the failure is told."""
    for name in ("0000000000000000", "ffffffffffffffff"):
        os.makedirs(f"{templates.root}/{name}")

    def refusing(path):
        if path.endswith("/0000000000000000"):
            raise HostError(f'cannot remove "{path}"')
        _remove(path)

    monkeypatch.setattr("kata.runtime.template._remove", refusing)
    with pytest.raises(HostError, match="0000000000000000"):
        templates.destroy()
    assert [n for n in os.listdir(templates.root) if n[0] != "."] == ["0000000000000000"]


@pytest.mark.usefixtures("made")
def test_destroy_leaves_nothing(templates):
    """Templates, half-made ones and their locks all go."""
    os.makedirs(f"{templates.root}/.new-0123456789abcdef")
    with open(f"{templates.root}/.new-0123456789abcdef/memory", "wb"):
        pass
    assert len(templates.destroy()) == 2
    assert os.listdir(templates.root) == []


def test_what_is_being_made_is_left_alone(templates, made):
    """A template whose lock is held is not removed under its maker."""
    lock = templates._lock(os.path.basename(made), print)
    try:
        assert templates.destroy() == []
        assert templates.find(MACHINE) is not None
    finally:
        os.close(lock)


def test_no_templates_is_no_error(templates):
    """Before the first start there is nothing to list, collect or destroy."""
    assert templates.find(MACHINE) is None
    assert (templates.status(), templates.collect(), templates.destroy()) == ([], [], [])


def test_an_unwritable_place_says_what_to_do(tmp_path):
    """Where templates cannot be written the error names the way out."""
    (tmp_path / "file").write_text("")
    templates = Templates(str(tmp_path / "file" / "x"), program="/bin/sh", uid=1000)
    with pytest.raises(HostError, match="cannot write to the template directory") as caught:
        templates.create(MACHINE, say=print)
    assert "--no-template" in caught.value.hint
