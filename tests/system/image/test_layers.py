"""What a layer's archive says is what the EROFS file, mounted, shows; umoci is the oracle."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile

import pytest

from kata.image.flatten import MOST
from kata.image.pull import fetch
from kata.image.store import Store
from support.host import need_tool
from support.images import PLAIN, TIME, Archive, Layout, mounted, sha, small_root, snapshot

# VFS_CAP_REVISION_2, effective; cap_net_raw permitted
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def store(directory):
    return Store(f"{directory}/data")


def stored(store, directory, *layers, **config):
    """An image of these archives, stored."""
    layout = Layout(f"{directory}/layout")
    layout.image(layers, **config)
    return fetch(layout.reference, store)


def everything(format=tarfile.PAX_FORMAT) -> bytes:
    """A layer with every kind of entry that a tar archive can have."""
    archive = Archive(format)
    archive.directory("./", mode=0o750)
    archive.directory("tmp", mode=0o1777).directory("home/a", mode=0o2750, uid=1000, gid=1001)
    archive.file("usr/bin/su", b"#!" * 5000, mode=0o4755).file("usr/bin/wall", b"w", mode=0o2755)
    archive.file("empty").file("exact", b"b" * 4096).file("odd", b"c" * 4097)
    archive.file("big", os.urandom(1 << 20) + b"end", uid=4_000_000_000, gid=3_000_000_000)
    archive.hardlink("usr/bin/su2", "usr/bin/su").hardlink("zz", "./usr/bin/su")
    archive.symlink("bin", "usr/bin").symlink("absolute", "/usr/bin/su")
    archive.symlink("dangling", "no/where").symlink("up", "../../../etc/passwd")
    archive.hardlink("dangling2", "dangling")
    archive.device("null", tarfile.CHRTYPE, 1, 3, mode=0o666)
    archive.device("disk", tarfile.BLKTYPE, 300, 70000, mode=0o660, gid=6)
    archive.add("pipe", tarfile.FIFOTYPE, mode=0o622)
    archive.file("früh/\u2603 \u65e5\u672c", b"names").file("with space\nand line", b"x")
    archive.file("long/" + "n" * 200 + "/" + "m" * 254, b"long").symlink("longlink", "t" * 1500)
    archive.directory("usr/share", mode=0o700, mtime=TIME - 5)
    archive.file("usr/share/later", b"does not change its directory's time")
    return archive.bytes()


def pax() -> bytes:
    """What only pax archives can say."""
    archive = Archive()
    archive.file("ping", b"ping", mode=0o755, xattrs={"security.capability": CAPABILITY})
    archive.file("user", b"u", xattrs={"user.note": b"text \xff\x00\n bytes", "user.b": b""})
    archive.directory("marked", xattrs={"user.dir": b"yes", "trusted.mine": b"root's"})
    archive.symlink("link", "ping", xattrs={"trusted.link": b"l"})
    archive.file("exact-time", b"t", pax_headers={"mtime": "1700000123.123456789"})
    archive.file("large-ids", b"", uid=4_294_967_294, gid=2_147_483_648)
    return archive.bytes()


def test_every_kind_of_entry(store, directory):
    """Modes, owners, times, links, nodes, names and content of a layer arrive unchanged."""
    image = stored(store, directory, everything())
    with mounted(image.layers, directory) as root:
        found = snapshot(root)
        assert found["."][:4] == (oct(0o40750), 0, 0, TIME * 10**9)
        assert found["tmp"][0] == oct(0o41777)
        assert found["home/a"][:3] == (oct(0o42750), 1000, 1001)
        assert found["usr/bin/su"][0] == oct(0o104755)
        assert found["usr/bin/su"][4] == sha(b"#!" * 5000)
        assert found["big"][1:3] == (4_000_000_000, 3_000_000_000)
        assert found["disk"][0] == oct(stat.S_IFBLK | 0o660)
        assert found["disk"][4] == (300, 70000)
        assert found["null"][4] == (1, 3)
        assert found["pipe"][0] == oct(stat.S_IFIFO | 0o622)
        assert found["up"][4] == "../../../etc/passwd"
        assert found["usr/share"][3] == (TIME - 5) * 10**9
        assert found["hard links"] == (
            ("dangling", "dangling2"), ("usr/bin/su", "usr/bin/su2", "zz"),
        )  # fmt: skip
        assert "long/" + "n" * 200 + "/" + "m" * 254 in found
        assert found["usr"][:4] == (oct(0o40755), 0, 0, TIME * 10**9)  # it had no entry


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_as_umoci_unpacks_it(store, directory, format):
    """Our mounted EROFS is what umoci unpacks, in pax and in GNU archives."""
    need_tool("umoci")
    image = stored(store, directory, everything(format), small_root())
    oracle = umoci(directory)
    # a directory without an entry has no time of its own; an overlay's root is its upmost one
    ignored = (".", "usr", "usr/bin", "home", "long", "früh", "long/" + "n" * 200)
    with mounted(image.layers, directory) as root:
        ours, theirs = (snapshot(path, ignore=ignored) for path in (root, oracle))
        theirs["big"] = ours["big"]  # its random content and ids are compared above
        assert ours == theirs


def umoci(directory: str) -> str:
    """What umoci makes of the layout."""
    target = f"{directory}/umoci"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{directory}/layout:latest", target],
        check=True, capture_output=True,
    )  # fmt: skip
    return f"{target}/rootfs"


def test_extended_attributes(store, directory):
    """File capabilities, user and trusted attributes and exact times are kept, byte for byte."""
    image = stored(store, directory, pax())
    with mounted(image.layers, directory) as root:
        found = snapshot(root)
    assert found["ping"][5] == (("security.capability", CAPABILITY),)
    assert found["user"][5] == (("user.b", b""), ("user.note", b"text \xff\x00\n bytes"))
    assert found["marked"][5] == (("trusted.mine", b"root's"), ("user.dir", b"yes"))
    assert found["link"][5] == (("trusted.link", b"l"),)
    assert found["exact-time"][3] == 1_700_000_123_123_456_789
    assert found["large-ids"][1:3] == (4_294_967_294, 2_147_483_648)


def whiteouts() -> list[bytes]:
    """Three layers that hide of each other all that can be hidden, in awkward orders."""
    low = Archive().file("a/one", b"1").file("a/two", b"2").file("b/deep/er/x", b"x")
    low.file("c/old", b"old").file("c/sub/old", b"old").directory("d").file("d/f", b"f")
    low.file("e/kept", b"e").symlink("g", "a").file("h/k", b"k").file("etc/passwd", b"low:\n")
    middle = Archive().file("a/.wh.one").file("b/.wh.deep").file("c/new", b"new")
    middle.file("c/.wh..wh..opq").file("c/sub/new", b"new")  # the mark comes after a sibling
    middle.file("d", b"now a file").file(".wh.g").file("e/.wh.none").file("etc/.wh.passwd")
    top = Archive().directory("h").file("h/n", b"n").file(".wh.h").file("a/one", b"again")
    top.file("etc/passwd", b"top:\n").file(".wh..wh.plnk").directory("d").file("d/again", b"")
    return [low.bytes(), middle.bytes(), top.bytes()]


def test_whiteouts(store, directory):
    """Whiteouts and opaque marks hide what is below, whatever their order in the archive."""
    image = stored(store, directory, *whiteouts())
    with mounted(image.layers, directory) as root:
        found = {path: facts[4] for path, facts in snapshot(root).items() if len(facts) == 6}
    files = sorted(path for path, content in found.items() if isinstance(content, str))
    assert files == [
        "a/one", "a/two", "c/new", "c/sub/new", "d/again", "e/kept", "etc/passwd", "h/n",
    ]  # fmt: skip
    assert found["a/one"] == sha(b"again")
    assert image.passwd == "top:\n"


def test_whiteouts_are_overlayfs_ones(store, directory):
    """A whiteout is the device 0/0, an opaque directory has the attribute, no name is .wh."""
    image = stored(store, directory, *whiteouts())
    with mounted(image.layers[1:2], directory) as root:
        found = snapshot(root)
    assert found["a/one"][0].startswith(oct(stat.S_IFCHR)[:4])
    assert found["a/one"][4] == (0, 0)
    assert found["c"][5] == (("trusted.overlay.opaque", b"y"),)
    assert not [path for path in found if ".wh." in path]


def test_entries_twice(store, directory):
    """Of two entries with one name the later wins, whatever kinds they are."""
    archive = Archive().directory("x").file("x/in", b"in").file("x", b"file").file("y", b"file")
    archive.directory("y", mode=0o700).file("y/in", b"in").symlink("z", "y").file("z", b"not y/in")
    archive.file("w", b"1").hardlink("v", "w").file("w", b"2")
    image = stored(store, directory, archive.bytes())
    with mounted(image.layers, directory) as root:
        found = snapshot(root)
    assert found["x"][4] == sha(b"file")
    assert "x/in" not in found
    assert found["y"][0] == oct(0o40700)
    assert found["y/in"][4] == sha(b"in")
    assert (found["z"][0], found["z"][4]) == (oct(0o100644), sha(b"not y/in"))
    assert (found["v"][4], found["w"][4]) == (sha(b"1"), sha(b"2"))
    assert found["hard links"] == ()


def test_paths_through_links(store, directory):
    """A path through a link of the layer lands where the link leads inside the image."""
    archive = Archive().directory("usr/bin").symlink("bin", "usr/bin").file("bin/sh", b"sh")
    archive.symlink("abs", "/usr/lib").file("abs/made", b"made").symlink("out", "../../../../tmp/o")
    archive.file("out/file", b"inside").symlink("opt", "usr").file("opt/bin/x", b"x")
    image = stored(store, directory, archive.bytes())
    with mounted(image.layers, directory) as root:
        found = snapshot(root)
    assert found["usr/bin/sh"][4] == sha(b"sh")
    assert found["usr/lib/made"][4] == sha(b"made")
    assert found["tmp/o/file"][4] == sha(b"inside")
    assert found["usr/bin/x"][4] == sha(b"x")
    assert found["bin"][4] == "usr/bin"
    assert not os.path.lexists("/tmp/o")


def test_sparse_files(store, directory):
    """Files that tar stored with holes are whole again."""
    path = f"{directory}/sparse"
    with open(path, "wb") as file:
        file.write(b"begin")
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate((9 << 20) + 3)
    with open(path, "rb") as file:
        wanted = sha(file.read())
    for form in ("gnu", "posix"):
        where = f"{directory}/{form}"
        os.makedirs(where)
        subprocess.run(
            ["tar", "-S", f"--format={form}", "-cf", f"{where}/t.tar", "-C", directory, "sparse"],
            check=True,
        )
        with open(f"{where}/t.tar", "rb") as file:
            data = file.read()
        assert len(data) < 1 << 20, "tar did not store it with holes"
        image = stored(store, where, data, how=PLAIN)
        with mounted(image.layers, where) as root:
            assert snapshot(root)["sparse"][4] == wanted


def test_the_same_layer_is_the_same_file(directory):
    """Two stores make the same bytes of a layer: nothing of the day or the place gets in."""
    layer = everything()
    contents = []
    for name in ("one", "two"):
        where = f"{directory}/{name}"
        image = stored(Store(f"{where}/data"), where, layer)
        with open(image.layers[0], "rb") as file:
            contents.append(sha(file.read()))
        assert stat.S_IMODE(os.stat(image.layers[0]).st_mode) == 0o400
    assert contents[0] == contents[1]


def test_what_overlayfs_keeps_for_itself_is_dropped(store, directory):
    """An image cannot steer overlayfs by attributes of its own."""
    hostile = {"trusted.overlay.redirect": b"/etc", "trusted.overlay.opaque": b"y", "user.k": b"v"}
    image = stored(store, directory, Archive().directory("d", xattrs=hostile).bytes())
    with mounted(image.layers, directory) as root:
        assert snapshot(root)["d"][5] == (("user.k", b"v"),)


def test_directories_without_an_entry(store, directory):
    """A directory that a layer only passes through keeps mode and owner of the layer below."""
    low = Archive().directory("tmp", mode=0o1777).directory("srv", uid=5, gid=6, mode=0o750)
    low.directory("srv/in", uid=7, gid=8).symlink("var", "tmp")
    top = Archive().file("tmp/f", b"f").file("srv/in/deep/g", b"g").file("var/h", b"h")
    image = stored(store, directory, low.bytes(), top.bytes())
    with mounted(image.layers, directory) as root:
        found = snapshot(root)
    assert found["tmp"][0] == oct(0o41777)
    assert found["srv"][:3] == (oct(0o40750), 5, 6)
    assert found["srv/in"][1:3] == (7, 8)
    assert found["srv/in/deep"][:3] == (oct(0o40755), 0, 0)
    assert found["var"][0] == oct(0o40755)  # it replaces the link
    other = f"{directory}/other"
    again = stored(store, other, top.bytes())
    with mounted(again.layers, other) as root:
        assert snapshot(root)["tmp"][0] == oct(0o40755)


def test_as_umoci_merges_layers(store, directory):
    """Layers with whiteouts and missing parents, mounted as overlay, are what umoci unpacks."""
    need_tool("umoci")
    low = Archive().directory("tmp", mode=0o1777).directory("srv", uid=5, gid=6, mode=0o750)
    layers = [low.bytes(), *whiteouts(), Archive().file("srv/x", b"").file("tmp/f").bytes()]
    image = stored(store, directory, *layers)
    oracle = umoci(directory)

    def facts(root):
        return {
            path: (value[:3], value[4], value[5]) if len(value) == 6 else value
            for path, value in snapshot(root).items()
        }

    with mounted(image.layers, directory) as root:
        ours, theirs = facts(root), facts(oracle)
    marks = {path for path in ours if ours[path][1:2] == ((0, 0),)}
    assert {path: ours[path] for path in ours.keys() - marks} == theirs


def test_very_many_layers(store, directory):
    """The lowest of more layers than a machine takes are made one that shows just the same."""
    layers = [everything(), pax(), *whiteouts()]
    layers += [Archive().file(f"n/{n}").file(f"n/.wh.{n - 3}").bytes() for n in range(14)]
    image = stored(store, directory, *layers)
    assert len(image.layers) == MOST
    few = Store(f"{directory}/few")
    single = [stored(few, f"{directory}/s{n}", layer) for n, layer in enumerate(layers)]
    os.mkdir(f"{directory}/one")
    with mounted(image.layers, directory) as ours:
        other_layers = [layer for each in single for layer in each.layers]
        with mounted(other_layers, f"{directory}/one") as all_:
            one, other = snapshot(ours, ignore=(".",)), snapshot(all_, ignore=(".",))
    assert one == other
