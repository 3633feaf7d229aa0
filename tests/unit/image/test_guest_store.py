"""Guest images on disk: published whole, found, listed, removed; damage is seen."""

import json
import os

import pytest

from kata.errors import HostError, NotFound, WrongState
from kata.image import freshness, guest_store
from kata.runtime import guest_image

FILES = {"vmlinux": b"kernel", "initrd.zst": b"initramfs"}


def manifest(**changes):
    """The manifest of FILES, as the builder makes it."""
    import hashlib

    def file(name):
        data = FILES[name]
        return {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return {
        "format": 1,
        "kernel": {**file("vmlinux"), "release": "6.1.0"},
        "initrd": file("initrd.zst"),
        "agent": {"version": "1", "api_hash": "h", "modules": ["kata"]},
        "python": "3.11",
        "packages": [],
        **changes,
    }


def publish(root, **changes):
    """Publish an image below ``root``."""
    with guest_store.building(str(root)) as work:
        return guest_store.publish(str(root), work, FILES, manifest(**changes), {"recipe": "r"})


def test_an_image_appears_and_is_the_default(tmp_path):
    """What was published is found by its name and as the default; nothing else is left."""
    image = publish(tmp_path)
    assert os.path.basename(image.directory) == image.digest[:12]
    assert guest_image.load(f"{tmp_path}/default") == image
    assert sorted(os.listdir(tmp_path)) == sorted([image.digest[:12], "default"])
    guest_image.verify(image)


def test_the_same_content_is_the_same_image(tmp_path):
    """Publishing the same again keeps the files; other content gets another name."""
    first = publish(tmp_path)
    inode = os.stat(first.kernel).st_ino
    assert publish(tmp_path) == first
    assert os.stat(first.kernel).st_ino == inode
    assert publish(tmp_path, python="3.13").digest != first.digest


def test_a_damaged_image_is_replaced(tmp_path):
    """Publishing over a damaged image mends it."""
    first = publish(tmp_path)
    with open(first.kernel, "wb") as file:
        file.write(b"KERNEL")
    with pytest.raises(HostError, match='"vmlinux" has another digest'):
        guest_image.verify(first)
    guest_image.verify(publish(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


def test_a_failed_build_leaves_nothing(tmp_path):
    """An error while building removes what was there so far, and keeps the default."""
    first = publish(tmp_path)

    def build() -> None:
        with guest_store.building(str(tmp_path)) as work, open(f"{work}/half", "wb") as file:
            file.write(b"x")
            raise OSError(28, "No space left on device")

    with pytest.raises(HostError, match="No space left") as caught:
        build()
    assert caught.value.hint == "make room there"
    assert sorted(os.listdir(tmp_path)) == sorted([first.digest[:12], "default"])


def test_remains_of_a_killed_build_are_swept(tmp_path):
    """The next build removes the directory of one whose process is gone, and only that."""
    os.makedirs(f"{tmp_path}/.build-4194399/image")
    os.makedirs(f"{tmp_path}/.build-1")
    publish(tmp_path)
    assert {n for n in os.listdir(tmp_path) if n[0] == "."} == {".build-1"}


def test_listing(tmp_path):
    """All images are listed, the default marked, a damaged one with its error."""
    first, second = publish(tmp_path), publish(tmp_path, python="3.13")
    os.truncate(first.initrd, 3)
    stored = {s.name: s for s in guest_store.list_images(str(tmp_path))}
    assert stored[second.digest[:12]].default
    assert stored[second.digest[:12]].image == second
    assert stored[first.digest[:12]].image is None
    assert "3 bytes" in stored[first.digest[:12]].error
    assert guest_store.list_images(f"{tmp_path}/none") == []


def test_removing(tmp_path):
    """An image is removed by the beginning of its name; with the default goes the link."""
    first, second = publish(tmp_path), publish(tmp_path, python="3.13")
    assert guest_store.remove(str(tmp_path), first.digest[:5]) == first.digest[:12]
    with pytest.raises(WrongState, match="the only one") as caught:
        guest_store.remove(str(tmp_path), "default")
    assert "--force" in caught.value.hint
    assert guest_store.remove(str(tmp_path), "default", last=True) == second.digest[:12]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "zz", "..", "/"])
def test_removing_what_is_not_there(tmp_path, name):
    """A name that fits nothing, or everything, removes nothing."""
    publish(tmp_path)
    publish(tmp_path, python="3.13")
    with pytest.raises(NotFound):
        guest_store.remove(str(tmp_path), name)
    assert len(os.listdir(tmp_path)) == 3


def test_no_image(tmp_path):
    """Without an image the error names the places, and the command that makes one."""
    with pytest.raises(HostError, match=str(tmp_path)) as caught:
        guest_image.find("", str(tmp_path))
    assert caught.value.hint == "kata guest build"
    with pytest.raises(HostError, match="no guest image in"):
        guest_image.find(str(tmp_path), "/nowhere")


def test_of_two_images_the_younger_is_used(tmp_path, monkeypatch):
    """An image built long ago does not stand in the way of what was installed since, or inverse."""
    ours = publish(tmp_path / "data/guest")
    installed = publish(tmp_path / "share", python="3.13")
    monkeypatch.setattr(guest_image, "installed_root", lambda: str(tmp_path / "share"))
    for image, digest in ((ours, installed.digest), (installed, ours.digest)):
        os.utime(f"{image.directory}/{guest_image.MANIFEST}", (1, 1))
        other = installed if image is ours else ours
        os.utime(f"{other.directory}/{guest_image.MANIFEST}")
        assert guest_image.find("", str(tmp_path / "data")).digest == digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: "{",
        lambda m: "[]",
        lambda m: json.dumps({**m, "format": 2}),
        lambda m: json.dumps({**m, "kernel": None}),
        lambda m: json.dumps({k: v for k, v in m.items() if k != "digest"}),
        lambda m: json.dumps({**m, "initrd": {**m["initrd"], "size": "many"}}),
        lambda m: json.dumps({**m, "initrd": {**m["initrd"], "file": "../../etc/passwd"}}),
    ],
)
def test_a_damaged_manifest(tmp_path, damage):
    """Whatever a manifest lacks or misstates is our error with the hint, never another."""
    image = publish(tmp_path)
    path = f"{image.directory}/manifest.json"
    with open(path, encoding="utf-8") as file:
        good = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        file.write(damage(good))
    with pytest.raises(HostError, match="is damaged") as caught:
        guest_image.load(image.directory)
    assert caught.value.hint == "kata guest build"


def test_missing_file(tmp_path):
    """A kernel that is gone is damage."""
    image = publish(tmp_path)
    os.unlink(image.kernel)
    with pytest.raises(HostError, match='"vmlinux": No such file'):
        guest_image.load(image.directory)


def test_an_image_is_current_only_by_its_recipe(tmp_path, monkeypatch):
    """The default is kept when packages and sources are the same, and not otherwise."""
    monkeypatch.setattr(freshness, "_has_newest", lambda manifest: True)
    monkeypatch.setattr(freshness, "recipe", lambda ours, modules: "r")
    image = publish(tmp_path)
    assert freshness.current(str(tmp_path), "src") == image
    monkeypatch.setattr(freshness, "recipe", lambda ours, modules: "other")
    assert freshness.current(str(tmp_path), "src") is None
    assert freshness.current(f"{tmp_path}/none", "src") is None
