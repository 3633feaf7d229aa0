"""dockerd as it may be set up: with ids of its own, and containers that outlive it."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager

from support import engines
from support.engines import IMAGE
from support.place import Place
from support.vm import DATA

FIRST = 400000  # of the host's ids, root inside


@contextmanager
def place_with(**settings):
    """A place whose dockerd has more settings, and nothing of the other tests'."""
    group = f"kata-test-dockerd-{os.getpid()}"
    place = Place(tempfile.mkdtemp(prefix="kt-", dir="/tmp"), (group,))
    try:
        os.chmod(place.directory, 0o755)
        engines.configure(place, DATA, cgroup_parent=f"/{group}", **settings)
        yield place
        assert not [each for each in place.groups() if "/docker" not in each]
    finally:
        place.close()


@contextmanager
def daemon(place: Place, runtime: str, archives: list[str] = ()):
    """Its Docker, with images."""
    with engines.docker_daemon(place, f"{place.directory}/dockerd.log") as docker:
        for archive in archives:
            docker.ok("load", "-i", archive)
        yield docker.with_runtime(runtime)


def test_mapped_users(runtime, image_archives):
    """userns-remap: root inside is another on the host, also in volumes, copies and execs."""
    with place_with(userns_remap="dockremap") as place:
        for name in ("subuid", "subgid"):
            place.write(f"/etc/{name}", f"dockremap:{FIRST}:65536\n")
        for name, line in (("passwd", "x:999:999::/:/bin/false"), ("group", "x:999:")):
            place.run("sh", "-c", f"echo dockremap:{line} >>/etc/{name}")
        shared = f"{place.directory}/shared"
        os.mkdir(shared)
        os.chmod(shared, 0o777)
        with daemon(place, runtime, image_archives) as docker:
            name = docker.up("-v", f"{shared}:/shared", "-v", "/kept", IMAGE, "sleep", "600")
            assert docker.sh(name, "tr -s ' ' </proc/self/uid_map") == f"0 {FIRST} 65536"
            docker.sh(name, "touch /shared/made /kept/made /etc/made; chown 5:6 /shared/made")
            made = os.stat(f"{shared}/made")
            assert (made.st_uid, made.st_gid) == (FIRST + 5, FIRST + 6)
            docker.ok("cp", image_archives[0], f"{name}:/root/copied")
            assert docker.sh(name, "stat -c %u:%g /root/copied /kept/made") == "0:0\n0:0"
            assert "A /root/copied" in docker.ok("diff", name)
            whole = docker.ok("run", "--rm", "--userns=host", IMAGE, "cat", "/proc/self/uid_map")
            assert str(FIRST) not in whole
            docker.clear()


def test_containers_outlive_the_daemon(runtime, image_archives):
    """live-restore: what runs goes on while dockerd is away, and is its own again afterwards."""
    with place_with(live_restore=True) as place:
        shared = f"{place.directory}/shared"
        os.mkdir(shared)
        with daemon(place, runtime, image_archives) as docker:
            ticks = "i=0; while :; do i=$((i+1)); echo tick-$i; sleep 0.1; done"
            docker.up(IMAGE, "sh", "-c", ticks, name="ticks")
            waits = "until test -e /shared/go; do sleep 0.1; done; exit 7"
            docker.up("-v", f"{shared}:/shared", IMAGE, "sh", "-c", waits, name="ends")
            ending = docker.state("ends")["Pid"]
            docker.up(IMAGE, "sleep", "600", name="paused")
            docker.ok("pause", "paused")
            pid = docker.state("ticks")["Pid"]
        assert os.path.exists(f"/proc/{pid}")
        with open(f"{shared}/go", "w", encoding="ascii"):
            docker.until(lambda: not os.path.exists(f"/proc/{ending}"))
        with daemon(place, runtime) as docker:
            assert docker.state("ticks")["Pid"] == pid
            assert docker.sh("ticks", "echo alive") == "alive"
            last = docker.ok("logs", "--tail", "1", "ticks")
            docker.until(lambda: docker.ok("logs", "--tail", "1", "ticks") != last)
            assert docker.state("paused")["Status"] == "paused"
            assert docker.until_status("ends", "exited")["ExitCode"] == 7
            docker.ok("unpause", "paused")
            assert docker.sh("paused", "echo resumed") == "resumed"
            docker.ok("stop", "-t", "0", "ticks")
            assert docker.state("ticks")["ExitCode"] == 137
            docker.ok("start", "ticks")
            assert docker.sh("ticks", "echo again") == "again"
            docker.clear()
