"""Files between host and container: volumes, binds, copies, what is read-only."""

import os

import pytest

from support import busybox
from support.engines import IMAGE, ODD


def test_volumes_and_binds(engine, directory):
    """Named volumes keep, binds show both sides the same, ro is refused inside, files bind too."""
    os.makedirs(f"{directory}/shared/deep")
    for path, text in (("shared/a", "from host\n"), ("one", "single\n")):
        with open(f"{directory}/{path}", "w", encoding="utf-8") as file:
            file.write(text)
    engine.ok("volume", "create", "kept")
    flags = (
        "-v", "kept:/kept", "-v", f"{directory}/shared:/rw", "-v", f"{directory}/shared:/ro:ro",
        "-v", f"{directory}/one:/etc/one:ro", "--mount", "type=tmpfs,destination=/t",
    )  # fmt: skip
    name = engine.up("--network=none", *flags, IMAGE, "sleep", "600")
    script = """
        cat /rw/a /ro/a /etc/one
        echo inside >/rw/b; chown 1000:50 /rw/b; chmod 640 /rw/b
        mv /rw/deep /rw/moved; ln -s b /rw/l
        echo x 2>/dev/null >/ro/c || echo refused; echo x 2>/dev/null >/etc/one || echo refused
        echo volume >/kept/v; stat -f -c %T /t
    """
    words = engine.sh(name, script).split("\n")
    assert words == ["from host", "from host", "single", "refused", "refused", "tmpfs"]
    about = os.stat(f"{directory}/shared/b")
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (1000, 50, 0o640)
    assert sorted(os.listdir(f"{directory}/shared")) == ["a", "b", "l", "moved"]
    with open(f"{directory}/shared/later", "w", encoding="utf-8") as file:
        file.write("later")
    assert engine.sh(name, "cat /ro/later") == "later"
    engine.end(name)
    out = engine.ok("run", "--rm", "--network=none", "-v", "kept:/k:ro", IMAGE, "cat", "/k/v")
    assert out == "volume"
    engine.ok("volume", "rm", "kept")


def test_read_only_root(engine):
    """--read-only refuses writing to the root, and tmpfs still takes it."""
    flags = ("--read-only", "--tmpfs=/var:size=1m", "--network=none")
    script = "touch /x 2>&1; touch /var/x && echo written; touch /bin/x 2>/dev/null || echo refused"
    result = engine("run", "--rm", *flags, IMAGE, "sh", "-c", script)
    assert "Read-only file system" in result.out
    assert result.out.split("\n")[1:] == ["written", "refused"]


def test_copying(engine, directory):
    """cp takes files and trees in and out, of a running container and of a stopped one."""
    os.makedirs(f"{directory}/tree/sub")
    with open(f"{directory}/tree/sub/file", "wb") as file:
        file.write(os.urandom(200_000))
    os.symlink("sub/file", f"{directory}/tree/link")
    name = engine.up("--network=none", "-v", "/volume", IMAGE, "sleep", "600")
    engine.ok("cp", f"{directory}/tree", f"{name}:/root/tree")
    engine.ok("cp", f"{directory}/tree/sub/file", f"{name}:/volume/file")
    script = "sha256sum </root/tree/link; sha256sum </volume/file; readlink /root/tree/link"
    sums = engine.sh(name, script)
    first, second, target = sums.split("\n")
    assert (first, target) == (second, "sub/file")
    engine.sh(name, "cp -a /root/tree /root/back; echo made-inside >/root/back/new")
    engine.sh(name, "echo v >/volume/new")
    engine.ok("cp", f"{name}:/root/back", f"{directory}/back")
    engine.ok("cp", f"{name}:/volume/new", f"{directory}/new")
    assert sorted(os.listdir(f"{directory}/back")) == ["link", "new", "sub"]
    assert os.path.getsize(f"{directory}/back/sub/file") == 200_000
    engine.ok("kill", name)
    engine.until_status(name, "exited")
    engine.ok("cp", f"{name}:/root/back/new", f"{directory}/again")
    engine.ok("cp", f"{directory}/again", f"{name}:/root/after")
    engine.ok("start", name)
    assert engine.sh(name, "cat /root/after /root/back/new") == "made-inside\nmade-inside"


def test_changes_are_kept_with_the_container(engine):
    """What is written to the root survives a restart; diff and export see it; commit keeps it."""
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    engine.sh(name, "echo kept >/home/kept; rm /etc/group; mkdir /new; chown 1000 /new")
    engine.ok("restart", "-t", "0", name)
    script = "cat /home/kept; test -e /etc/group || echo gone; stat -c %u /new"
    assert engine.sh(name, script).split() == ["kept", "gone", "1000"]
    changes = set(engine.ok("diff", name).split("\n"))
    assert {"A /home/kept", "D /etc/group", "A /new"} <= changes
    engine.ok("commit", name, "localhost/committed")
    engine.end(name)
    out = engine.ok("run", "--rm", "--network=none", "localhost/committed", "cat", "/home/kept")
    assert out == "kept"
    engine.ok("rmi", "localhost/committed")


def test_volume_of_an_image(engine):
    """A volume that an image names starts with what the image has there and is not in the root."""
    name = engine.up("--network=none", ODD, "sleep 600")
    mounts = engine.inspect(name)["Mounts"]
    assert [mount["Destination"] for mount in mounts] == ["/kept"]
    engine.ok("exec", "-u", "0", name, "sh", "-c", "echo seen >/kept/file")
    with open(f"/proc/{engine.place.pid}/root{mounts[0]['Source']}/file", encoding="utf-8") as file:
        assert file.read() == "seen\n"
    engine.end(name)


def test_overlay_volumes(podman, directory):
    """-v with O: the container writes to a layer of its own, or to one that is kept."""
    for name in ("source", "upper", "work"):
        os.mkdir(f"{directory}/{name}")
    with open(f"{directory}/source/file", "w", encoding="utf-8") as file:
        file.write("host\n")
    volume = f"{directory}/source:/data:O"
    script = "cat /data/file; echo inside >/data/file; touch /data/new; cat /data/file; ls /data"
    words = ("run", "--rm", "--network=none", "-v")
    for _ in range(2):  # nothing of the first is there for the second
        found = podman.ok(*words, volume, IMAGE, "sh", "-c", script)
        assert found.split() == ["host", "inside", "file", "new"]
    kept = f"{volume},upperdir={directory}/upper,workdir={directory}/work"
    for expected in ("host", "inside"):
        assert podman.ok(*words, kept, IMAGE, "sh", "-c", script).split()[0] == expected
    assert sorted(os.listdir(f"{directory}/upper")) == ["file", "new"]
    with open(f"{directory}/source/file", encoding="utf-8") as file:
        assert file.read() == "host\n"


def test_copies_out_of_an_overlay_volume(podman, directory):
    """cp sees what the container has written to it."""
    os.mkdir(f"{directory}/source")
    volume = f"{directory}/source:/data:O"
    name = podman.up("--network=none", "-v", volume, IMAGE, "sleep", "600")
    podman.sh(name, "echo inside >/data/new")
    podman.ok("cp", f"{name}:/data/new", f"{directory}/copy")
    with open(f"{directory}/copy", encoding="utf-8") as file:
        assert file.read() == "inside\n"
    result = podman("cp", f"{directory}/copy", f"{name}:/data/copied")
    if podman.runtime == "runc":
        assert result.code == 0
    else:  # not into what nobody would see: it is said
        assert "read-only file system" in result.err
    assert (podman("exec", name, "cat", "/data/copied").code == 0) == (result.code == 0)


@pytest.mark.parametrize(("flag", "answer"), [("", "refused"), (",rw=true", "written")])
def test_files_of_an_image(podman, flag, answer):
    """--mount type=image: the files of another image, to be read, or written until the end."""
    mount = f"type=image,source={ODD},dst=/other{flag}"
    script = "ls -d /other/bin; touch /other/x 2>/dev/null && echo written || echo refused"
    found = podman.ok("run", "--rm", "--network=none", "--mount", mount, IMAGE, "sh", "-c", script)
    assert found.split() == ["/other/bin", answer]


@pytest.mark.parametrize("overlay", [False, True], ids=["itself", "overlay"])
def test_root_that_is_a_directory(podman, directory, overlay):
    """--rootfs: the container writes to the directory, or with O to a layer over it."""
    root = busybox.make(f"{directory}/root")
    words = ("--rootfs", f"{root}{':O' * overlay}", "sh", "-c", "touch /made && ls /made")
    assert podman.ok("run", "--rm", "--network=none", *words) == "/made"
    assert os.path.exists(f"{root}/made") != overlay
