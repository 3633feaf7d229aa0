"""The guest image, built out of real packages: the same twice; and what happens when it cannot."""

import json
import marshal
import os
import shutil
import stat
import subprocess

import pytest

from kata.errors import HostError
from kata.image import commands, debian, guest_builder
from kata.linux import syscalls
from kata.runtime import guest_image
from kata.wire.record import replace
from support.host import need_tool
from support.source import CHECKOUT

LIMIT = 8_000_000  # bytes of the initramfs


def build(destination, said=None, **options):
    """Build below ``destination``; what is said goes to a list."""
    lines = [] if said is None else said
    return guest_builder.build(str(destination), say=lines.append, **options)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A copy of our package, which nobody edits meanwhile."""
    path = tmp_path_factory.mktemp("ours")
    shutil.copytree(f"{CHECKOUT}/src/kata", path / "kata")
    return str(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory, ours):
    """An image built once."""
    need_tool("zstd")
    return build(tmp_path_factory.mktemp("guest"), ours=ours, anew=True)


@pytest.fixture(scope="module")
def files(image):
    """The files of its initramfs as ``path: (mode, bytes)``."""
    data = commands.run(["zstd", "-dc", image.initrd])
    found, offset = {}, 0
    while True:
        fields = [int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        start = offset + 110
        name = data[start : start + fields[11] - 1].decode()
        if name == "TRAILER!!!":
            return found
        body = (start + fields[11] + 3) & ~3
        assert fields[2:4] == [0, 0], f"{name} does not belong to root"
        assert fields[5] == 0, f"{name} has a time"
        found[name] = (fields[1], data[body : body + fields[6]])
        offset = (body + fields[6] + 3) & ~3


@pytest.mark.timeout(600)
def test_built_twice_it_is_the_same(image, ours, tmp_path, monkeypatch):
    """Another build, elsewhere, at another time, with another mask, has the same digest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    mask = os.umask(0o077)
    try:
        shutil.copytree(ours, tmp_path / "copy")
        again = build(tmp_path / "other", ours=str(tmp_path / "copy"), anew=True)
    finally:
        os.umask(mask)
    assert again.digests == image.digests
    assert again.digest == image.digest


def test_it_is_small(image):
    """The initramfs is below 8 MB."""
    assert image.sizes[1] < LIMIT


def test_it_is_kept_when_nothing_changed(image, ours):
    """Building again where a current image is builds nothing."""
    said = []
    assert build(os.path.dirname(image.directory), said, ours=ours) == image
    assert said == [f"guest image {image.digest[:12]} is up to date"]


def test_the_manifest_tells_where_all_came_from(image):
    """Packages with versions and digests, the agent's modules, the kernel's release."""
    with open(f"{image.directory}/manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    names = {package["name"] for package in manifest["packages"]}
    assert {f"linux-image-{image.kernel_release}", f"python{image.python}-minimal"} <= names
    assert all(
        len(package["sha256"]) == 64 and package["version"] for package in manifest["packages"]
    )
    assert "kata.guest.__main__" in manifest["agent"]["modules"]
    guest_image.verify(image)


def test_only_compiled_python_is_inside(files):
    """No source, no test, no package manager: bytes that the interpreter reads as they are."""
    assert not [name for name in files if name.endswith(".py")]
    for name, (mode, data) in files.items():
        if name.endswith(".pyc"):
            assert stat.S_ISREG(mode)
            assert data[4:8] == b"\1\0\0\0", f"{name} would be compared with its source"


def test_tracebacks_name_files_and_lines(files):
    """The compiled agent knows the paths and lines that a traceback shows."""
    (_, data) = files["usr/lib/kata/kata/guest/__main__.pyc"]
    code = marshal.loads(data[16:])
    assert code.co_filename == "/usr/lib/kata/kata/guest/__main__.py"
    assert max(line for *_, line in code.co_lines() if line) > 10


def test_modules_are_there_as_listed(files):
    """Every file that the boot list and the table name is in the image, before those after it."""
    boot = files["etc/kata/modules"][1].decode().split()
    table = [line.split() for line in files["etc/kata/modules.table"][1].decode().splitlines()]
    paths = {name: path for name, path, _ in table}
    assert boot
    assert {path[1:] for path in [*boot, *paths.values()]} <= set(files)
    for _, _, needs in table:
        assert needs == "-" or set(needs.split(",")) <= set(paths)
    assert {"virtio_console", "erofs", "fs_erofs", "overlay", "virtiofs", "ext4"} <= set(paths)


def test_the_interpreter_runs_with_what_is_inside(files, tmp_path):
    """With the image as its root the interpreter starts, and imports the whole agent."""
    for name, (mode, data) in files.items():
        path = tmp_path / name
        if stat.S_ISDIR(mode):
            path.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISREG(mode):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode & 0o777)
    init = files["init"][1].decode()
    program = init.partition("from kata")[0] + "import kata.guest.__main__\nprint('alive')"
    interpreter = init.splitlines()[0][2:].split()[0]
    argv = ["chroot", str(tmp_path), interpreter, "-IS", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("alive\n", "")


def test_without_a_network_the_error_is_clear(tmp_path, monkeypatch):
    """A download that fails gives one error with apt's words, and leaves nothing."""
    broken = ["-o", "Acquire::http::Proxy=http://127.0.0.1:9", "-o", "Acquire::Retries=0"]
    real = commands.run

    def run(argv, **options):
        argv = [argv[0], *broken, *argv[1:]] if argv[0] == "apt-get" else argv
        if "update" in argv:  # the machine's own lists of packages stay as they are
            raise HostError('"apt-get" failed', why="could not connect to 127.0.0.1")
        return real(argv, **options)

    monkeypatch.setattr(commands, "run", run)
    with pytest.raises(HostError, match="connect"):
        build(tmp_path / "guests", cache=str(tmp_path / "cache"), anew=True)
    assert os.listdir(tmp_path / "guests") == []
    assert os.listdir(tmp_path / "cache") == []


def test_without_apt_the_error_is_clear(tmp_path, monkeypatch):
    """On another distribution the error says what is needed."""
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: None)
    with pytest.raises(HostError, match='"apt-get" was not found') as caught:
        build(tmp_path / "guests")
    assert "Debian" in caught.value.hint
    assert not os.path.exists(tmp_path / "guests")


def test_a_wrong_digest_is_refused(tmp_path):
    """A package whose bytes are not those of apt's index is not used, and not kept."""
    (package,) = debian.available(["hostname"])
    bad = replace(package, sha256="0" * 64)
    with pytest.raises(HostError, match="digest"):
        debian.fetch([bad], str(tmp_path), lambda text: None)
    assert os.listdir(tmp_path) == []


@pytest.mark.timeout(300)
def test_a_full_disk_leaves_nothing(tmp_path):
    """With no room for the image the error says so, and the old image stays the default."""
    root = tmp_path / "small"
    root.mkdir()
    syscalls.mount("tmpfs", str(root), "tmpfs", 0, "size=12m")
    try:
        os.mkdir(root / "kept")
        os.symlink("kept", root / "default")
        with pytest.raises(HostError, match="No space left") as caught:
            build(root, anew=True)
        assert caught.value.hint == "make room there"
        assert sorted(os.listdir(root)) == ["default", "kept"]
    finally:
        syscalls.umount(str(root))
