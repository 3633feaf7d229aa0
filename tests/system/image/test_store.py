"""The local store: what is fetched is found, named, removed, and survives what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from kata.errors import HostError, ImageError, NotFound, Unsupported, WrongState
from kata.image import changes, scratch
from kata.image.importing import import_source
from kata.image.pull import Options, fetch
from kata.image.store import Store
from kata.image.tarstream import Limits
from support.host import need_tool
from support.images import ARCHITECTURE, PLAIN, Archive, Layout, mounted, sha, small_root


@pytest.fixture
def store(directory):
    return Store(f"{directory}/data")


@pytest.fixture
def layout(directory):
    return Layout(f"{directory}/layout")


def leftovers(store):
    """What a fetch must not leave: scratch files, and layers that no image has."""
    return os.listdir(store.scratch) if os.path.isdir(store.scratch) else []


CONFIG = {
    "Entrypoint": ["/bin/tool", "--x"], "Cmd": ["run"], "Env": ["PATH=/bin", "E=é"], "User": "web",
    "WorkingDir": "/srv", "Volumes": {"/data": {}, "/a": {}}, "StopSignal": "SIGINT",
    "Labels": {"b": "2", "a": "1"}, "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["x"]},
}  # fmt: skip


def test_what_is_fetched_is_found(store, layout):
    """An image keeps its configuration, its users and its layers, and is found by every name."""
    second = Archive().file("etc/passwd", b"web:x:7:8::/srv:\n").bytes()
    descriptor = layout.image([small_root(), second], **CONFIG)
    fetched = fetch(layout.reference, store, Options(name="web:1"))
    found = store.find("web:1")
    assert found == fetched
    assert (found.entrypoint, found.cmd) == (("/bin/tool", "--x"), ("run",))
    assert (found.env, found.user) == (("PATH=/bin", "E=é"), "web")
    assert (found.working_dir, found.volumes) == ("/srv", ("/a", "/data"))
    assert (found.stop_signal, found.labels) == ("SIGINT", (("a", "1"), ("b", "2")))
    assert found.exposed_ports == ("80/tcp",)
    assert (found.passwd, found.group) == ("web:x:7:8::/srv:\n", "root:x:0:\n")
    assert found.name == "docker.io/library/web:1"
    assert found.digests == (descriptor["digest"],)
    for text in (found.id, found.id[:12], f"sha256:{found.id}", descriptor["digest"], "web:1"):
        assert store.find(text).layers == found.layers, text
    assert len(store.find(f"anything@{descriptor['digest']}").layers) == 2
    assert leftovers(store) == []
    with pytest.raises(NotFound, match='"web"'):
        store.find("web")


def test_layers_are_shared(store, layout, directory):
    """Two images with a layer in common have it once; it goes with the last of them."""
    top = Archive().file("top", b"top").bytes()
    base = Archive().directory("etc").file("etc/x", b"x").bytes()
    layout.image([base], "one")
    layout.image([base, top], "two")
    one = fetch(f"{layout.reference}:one", store, Options(name="one"))
    two = fetch(f"{layout.reference}:two", store, Options(name="two"))
    assert one.layers[0] == two.layers[0]
    assert len(os.listdir(store.layers)) == 2
    removed = store.remove("one")
    assert (removed.images, removed.layers) == ((one.id,), ())
    assert store.find("two").complete()
    removed = store.remove("two")
    assert len(removed.layers) == 2
    assert removed.size == two.size
    assert os.listdir(store.layers) == []
    assert store.list() == []


def test_names_and_removal(store, layout):
    """A second name keeps the image; by its id all names go; a name may come to mean another."""
    layout.image([small_root()], "a")
    layout.image([Archive().file("other").bytes()], "b")
    image = fetch(f"{layout.reference}:a", store, Options(name="x/y:1"))
    fetch(f"{layout.reference}:a", store, Options(name="x/y/z:1"))
    assert {i.name for i in store.list()} == {"docker.io/x/y/z:1", "docker.io/x/y:1"}
    assert store.remove("x/y:1").images == ()
    assert store.remove(image.id[:8]).names == ("docker.io/x/y/z:1",)
    assert os.listdir(store.names) == []
    fetch(f"{layout.reference}:a", store, Options(name="moving"))
    other = fetch(f"{layout.reference}:b", store, Options(name="moving"))
    assert store.find("moving").id == other.id != image.id
    assert [(i.name, i.id) for i in store.list() if not i.name] == [("", image.id)]
    assert store.prune().images == (image.id,)
    with pytest.raises(NotFound):
        store.remove("x/y:1")


def test_prune(store, layout):
    """Unnamed images, loose layers and leftovers go; with ``everything`` what nobody uses."""
    layout.image([small_root()], "a")
    layout.image([Archive().file("b").bytes()], "b")
    kept = fetch(f"{layout.reference}:a", store, Options(name="kept"))
    loose = fetch(f"{layout.reference}:b", store)
    with open(f"{store.layers}/{'0' * 64}.erofs", "w") as file:
        file.write("left by a crash")
    os.makedirs(f"{store.scratch}/image-1-abandoned/tree/deep")
    removed = store.prune()
    assert removed.images == (loose.id,)
    assert len(removed.layers) == 2
    assert removed.leftovers == (f"{store.scratch}/image-1-abandoned",)
    assert leftovers(store) == []
    assert store.find("kept").id == kept.id
    assert store.prune(everything=True, used={"docker.io/library/kept:latest"}).images == ()
    assert store.prune(everything=True).names == ("docker.io/library/kept:latest",)
    assert store.list() == []


def test_nothing_is_pruned_while_an_image_comes(store, layout):
    """While one is being stored its layers are safe from prune and from another's removal."""
    layout.image([small_root()], "a")
    fetch(f"{layout.reference}:a", store, Options(name="a"))
    with changes.adding(store):
        with pytest.raises(WrongState):
            store.prune()
        assert store.remove("a").layers == ()
    assert len(store.prune().layers) == 1


def test_a_damaged_store_mends_itself(store, layout):
    """A layer cut short or a record that is no JSON counts as missing; a fetch restores it."""
    layout.image([small_root()])
    image = fetch(layout.reference, store, Options(name="x"))
    os.truncate(image.layers[0], 100)
    with pytest.raises(NotFound, match="damaged"):
        store.find("x")
    fetch(layout.reference, store, Options(name="x"))
    assert store.find("x").sizes == image.sizes
    with open(f"{store.images}/{image.id}.json", "w") as file:
        file.write('{"id": ')
    with pytest.raises(NotFound, match="damaged"):
        store.find("x")
    fetch(layout.reference, store, Options(name="x"))
    assert store.find("x").layers == image.layers


def test_tags_and_platforms(store, layout, directory):
    """The tag and this machine's architecture decide; what is missing is named."""
    mine, other = small_root(), Archive().file("arm").bytes()
    foreign = {"amd64": "arm64"}.get(ARCHITECTURE, "amd64")

    def for_other(_, config):
        config["architecture"] = foreign

    layout.image([other], "", platform=("linux", foreign), change=for_other)
    layout.image([mine], "", platform=("linux", ARCHITECTURE))
    nested, layout.index = layout.index, []
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    layout.index = [layout.document({**index, "manifests": nested}, index["mediaType"])]
    layout.index[0]["annotations"] = {"org.opencontainers.image.ref.name": "multi"}
    layout.write()
    assert fetch(f"{layout.reference}:multi", store).passwd.startswith("root:")
    with pytest.raises(ImageError, match=r'"absent".*multi'):
        fetch(f"{layout.reference}:absent", store)
    only = Layout(f"{directory}/only")
    only.image([other], platform=("linux", foreign), change=for_other)
    with pytest.raises(ImageError, match=f"linux/{foreign}"):
        fetch(only.reference, store)
    hidden = Layout(f"{directory}/hidden")
    hidden.image([other], change=for_other)
    with pytest.raises(ImageError, match=f"linux/{foreign}"):
        fetch(hidden.reference, store)


def _damage(kind):
    """A layout with one thing wrong, by what is wrong."""

    def apply(layout):
        path = layout.path
        descriptor = layout.image([small_root()])
        with open(f"{path}/blobs/{descriptor['digest'].replace(':', '/')}") as file:
            manifest = json.load(file)
        blob = f"{path}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
        config = f"{path}/blobs/sha256/{manifest['config']['digest'][7:]}"
        if kind == "flipped":
            with open(blob, "r+b") as file:
                file.seek(100)
                file.write(b"\xff\xff")
        elif kind == "cut":
            os.truncate(blob, 50)
        elif kind == "missing":
            os.unlink(blob)
        elif kind == "fifo":
            os.unlink(blob)
            os.mkfifo(blob)
        elif kind == "config":
            os.truncate(config, 10)
        elif kind == "index":
            os.truncate(f"{path}/index.json", 10)

    return apply


@pytest.mark.parametrize("kind", ["flipped", "cut", "missing", "fifo", "config", "index"])
def test_damaged_layouts(store, layout, kind):
    """Whatever is damaged in a layout is one clear error, and nothing of it is stored."""
    _damage(kind)(layout)
    with pytest.raises(ImageError):
        fetch(layout.reference, store, Options(name="x"))
    assert store.list() == []
    assert os.listdir(store.layers) == []
    assert leftovers(store) == []


def test_refused_kinds(store, directory):
    """Foreign layers, unknown kinds, contradicting digests and old manifests are refused."""

    def layer_kind(name):
        return lambda manifest, _: manifest["layers"][0].update(mediaType=name)

    def wrong_diff_id(_, config):
        config["rootfs"]["diff_ids"] = [f"sha256:{'0' * 64}"]

    def too_few(_, config):
        config["rootfs"]["diff_ids"] = []

    def version(manifest, _):
        manifest["schemaVersion"] = 1

    cases = (
        (Unsupported, layer_kind("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")),
        (Unsupported, layer_kind("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")),
        (ImageError, wrong_diff_id), (ImageError, too_few), (Unsupported, version),
    )  # fmt: skip
    for number, (error, change) in enumerate(cases):
        layout = Layout(f"{directory}/{number}")
        layout.image([small_root()], change=change)
        with pytest.raises(error):
            fetch(layout.reference, store)
    assert store.list() == []
    assert os.listdir(store.layers) == []


def hostile():
    """Archives that try to reach out of the root, or are no archives."""
    yield "dotdot", Archive().file("../../escape", b"x").bytes()
    yield "dotdot inside", Archive().file("a/../../escape", b"x").bytes()
    yield "hard link out", Archive().hardlink("h", "../../../../etc/passwd").bytes()
    yield "hard link to the host", Archive().hardlink("h", "/etc/hostname").bytes()
    yield "hard link by a link", Archive().symlink("l", "/etc").hardlink("h", "l/hostname").bytes()
    yield "hard link to nothing", Archive().hardlink("h", "none").bytes()
    yield "hard link to a directory", Archive().directory("d").hardlink("h", "d").bytes()
    yield "below a file", Archive().file("f").file("f/g").bytes()
    yield "link loop", Archive().symlink("a", "b").symlink("b", "a").file("a/x").bytes()
    yield "unknown kind", Archive().add("x", b"Z").bytes()
    yield "root as a file", Archive().file("./").bytes().replace(b"./\0", b".\0\0")
    yield "whiteout of nothing", Archive().file("d/.wh.").bytes()
    yield "whiteout of the parent", Archive().file("d/.wh...").bytes()
    yield "long component", Archive().file("n" * 256).bytes()
    yield "deep", Archive().file("d/" * 600 + "f").bytes()
    yield "negative owner", Archive(tarfile.GNU_FORMAT).file("x", uid=-5).bytes()
    yield "cut", Archive().file("x", b"y" * 5000).bytes()[:2048]
    yield "not an archive", b"this is not a tar archive" * 100
    good = Archive().file("x", b"y").bytes()
    yield "bad checksum", good[:1024] + b"x" * 512 + good[1024:]
    yield "empty", b""


@pytest.mark.parametrize(("name", "data"), list(hostile()), ids=[name for name, _ in hostile()])
def test_hostile_archives(store, layout, directory, name, data):
    """They are refused with one error; nothing is stored, nothing outside is touched."""
    before = sorted(os.listdir("/")), sorted(os.listdir("/tmp")), os.stat("/etc/hostname")
    layout.image([data])
    with pytest.raises(ImageError) as caught:
        fetch(layout.reference, store, Options(name="x"))
    assert str(caught.value)
    assert (sorted(os.listdir("/")), os.stat("/etc/hostname")) == (before[0], before[2])
    assert not [n for n in os.listdir("/tmp") if "escape" in n]
    assert leftovers(store) == []
    assert os.listdir(store.layers) == []


def test_absolute_names_and_links_stay_inside(store, layout, directory):
    """An absolute name and a link to / mean the root of the image, as with Docker."""
    archive = Archive().symlink("out", f"{directory}/outside").file("out/f", b"in")
    archive.file(f"{directory}/direct", b"in").symlink("up", "../../../..").file("up/rooted", b"r")
    os.mkdir(f"{directory}/outside")
    layout.image([archive.bytes()])
    image = fetch(layout.reference, store)
    assert os.listdir(f"{directory}/outside") == []
    assert not os.path.exists(f"{directory}/direct")
    with mounted(image.layers, directory) as root:
        assert os.path.isfile(f"{root}{directory}/outside/f")
        assert os.path.isfile(f"{root}{directory}/direct")
        assert os.path.isfile(f"{root}/rooted")


def test_bombs(store, layout):
    """More entries or bytes than allowed end the unpacking, however small the blob."""
    archive = Archive()
    for number in range(200):
        archive.file(f"f{number}")
    layout.image([archive.bytes()], "entries")
    layout.image([Archive().file("zeros", bytes(20 << 20)).bytes()], "bytes")
    layout.image([small_root() + bytes(40 << 20)], "tail")
    for tag, limits in (
        ("entries", Limits(entries=100)), ("bytes", Limits(size=1 << 20)),
        ("tail", Limits(size=1 << 20)),
    ):  # fmt: skip
        with pytest.raises(ImageError, match="too large"):
            fetch(f"{layout.reference}:{tag}", store, Options(limits=limits))
        assert leftovers(store) == []


@pytest.fixture
def small_disk(directory):
    """A file system of 3 MiB."""
    path = f"{directory}/small"
    os.mkdir(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("size", [5 << 20, 2 << 20], ids=["unpacking", "packing"])
def test_a_full_disk(small_disk, layout, size):
    """A disk that fills up, at either step, is a clear error, and the space is given back."""
    layout.image([Archive().file("big", os.urandom(size)).bytes()])
    store = Store(f"{small_disk}/data")
    with pytest.raises(HostError, match="no space left"):
        fetch(layout.reference, store)
    used = sum(len(files) for _, _, files in os.walk(small_disk))
    assert used <= 1  # the lock
    assert os.statvfs(small_disk).f_bfree > os.statvfs(small_disk).f_blocks - 16


def test_an_unwritable_place(directory, layout):
    """A data root that cannot be made says so."""
    layout.image([small_root()])
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(HostError, match="cannot write"):
        fetch(layout.reference, Store(f"{directory}/file/data"))


FETCH = "import sys; from kata.image.pull import fetch; from kata.image.store import Store\n"
FETCH += "print(fetch(sys.argv[1], Store(sys.argv[2])).id)"


def fetching(layout, store):
    """A process that fetches."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, layout.reference, store.data_root],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_two_fetches_at_once(store, layout):
    """Both end well, with one and the same layer."""
    layout.image([Archive().file("big", os.urandom(8 << 20)).bytes()])
    processes = [fetching(layout, store) for _ in range(3)]
    ids = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(ids) == 1
    assert len(os.listdir(store.layers)) == 1
    assert leftovers(store) == []


def test_killed_in_the_middle(store, layout):
    """After SIGKILL while unpacking, the next fetch removes what was left and succeeds."""
    archive = Archive()
    for number in range(3000):
        archive.file(f"d{number % 50}/f{number}", b"x" * 3000)
    layout.image([archive.bytes()])
    process = fetching(layout, store)
    while not [name for name in leftovers(store) if not name.endswith(".lock")]:
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert len(leftovers(store)) == 3  # the directory, its lock, the layer's
    image = fetch(layout.reference, store)
    assert image.complete()
    assert leftovers(store) == []


def test_scratch_of_the_living_is_left_alone(store):
    """Only directories whose maker is gone are collected."""
    os.makedirs(store.scratch)
    with scratch.directory(store.scratch) as mine:
        assert scratch.collect(store.scratch) == []
        assert os.path.isdir(mine)
    assert leftovers(store) == []


@pytest.mark.parametrize("program", ["gzip", "zstd", "bzip2", "xz", "cat"])
def test_compressions(store, directory, program):
    """A bare root is read through every compression, and is one image whatever it was."""
    need_tool(program)
    data = Archive().directory("etc").file("etc/passwd", b"p:\n").bytes()
    with open(f"{directory}/root.tar", "wb") as file:
        file.write(subprocess.run([program], input=data, stdout=-1, check=True).stdout)
    image = import_source(f"{directory}/root.tar", store, Options(name="bare"))
    assert image.passwd == "p:\n"
    assert os.path.basename(image.layers[0]) == f"{sha(data)}.erofs"
    assert store.find("bare") == image


def test_importing_a_directory(store, directory):
    """A directory becomes one layer; the same tree gives the same image."""
    os.makedirs(f"{directory}/root/etc")
    with open(f"{directory}/root/etc/passwd", "w") as file:
        file.write("d:\n")
    one = import_source(f"{directory}/root", store, Options(name="dir"))
    two = import_source(f"{directory}/root", store)
    assert one.passwd == "d:\n"
    assert one.id == two.id
    with pytest.raises(ImageError, match="no such file"):
        import_source(f"{directory}/none", store)


def test_importing_a_tree_with_a_mount(store, directory, small_disk):
    """A directory with another file system in it is refused: /proc would be read without end."""
    with pytest.raises(ImageError, match="another file system"):
        import_source(directory, store)


def test_archives(store, layout, directory):
    """What skopeo writes as docker-archive and oci-archive is read back, and named as it was."""
    need_tool("skopeo")
    layout.image([small_root(), Archive().file("b", b"b").bytes()], Cmd=["sh"])
    archives = {"docker-archive": "my/app:2", "oci-archive": "two"}
    for kind, name in archives.items():
        target = f"{kind}:{directory}/{kind}.tar:{name}"
        subprocess.run(["skopeo", "copy", "-q", layout.reference, target], check=True)
    direct = fetch(layout.reference, store)
    docker = import_source(f"{directory}/docker-archive.tar", store)
    assert docker.name == "docker.io/my/app:2"
    assert docker.layers == direct.layers
    assert docker.cmd == ("sh",)
    oci = import_source(f"{directory}/oci-archive.tar", store, Options(name="x"))
    assert oci.layers == direct.layers
    assert fetch(f"docker-archive:{directory}/docker-archive.tar", store).id == docker.id
    shutil.copy(f"{directory}/oci-archive.tar", f"{directory}/cut.tar")
    os.truncate(f"{directory}/cut.tar", 3000)
    with pytest.raises(ImageError):
        fetch(f"oci-archive:{directory}/cut.tar", store)
    with pytest.raises(ImageError, match="no such file"):
        fetch(f"docker-archive:{directory}/none.tar", store)
    assert leftovers(store) == []


def test_no_skopeo(store, monkeypatch):
    """Without skopeo a registry's image is an error that says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="skopeo") as caught:
        fetch("docker://example.test/x", store)
    assert "apt install skopeo" in caught.value.hint
    assert leftovers(store) == []


def test_no_mkfs(store, layout, monkeypatch):
    """Without mkfs.erofs nothing can be stored, and the error says what to install."""
    layout.image([small_root()], how=PLAIN)
    monkeypatch.setenv("PATH", "/bin-that-is-not")
    with pytest.raises(HostError, match=r"mkfs\.erofs") as caught:
        fetch(layout.reference, store)
    assert "erofs-utils" in caught.value.hint
