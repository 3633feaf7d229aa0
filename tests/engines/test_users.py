"""User namespaces as engines ask for them: ids inside are not those of the host."""

import os

import pytest

from support.engines import IMAGE

FACTS = """
    tr -s ' ' </proc/self/uid_map; id -u; stat -c %u:%g /etc/passwd /srv
    touch /srv/made /etc/made && stat -c %u:%g /srv/made /etc/made
    chown 7:8 /srv/made && hostname again && echo x >/dev/null && echo done
    touch /proc/sys/kernel/panic 2>/dev/null || echo refused
"""


@pytest.fixture(scope="session")
def subordinate(place):
    """The ids that Podman takes automatic maps from."""
    for name in ("subuid", "subgid"):
        place.write(f"/etc/{name}", "containers:300000:200000\n")


def facts(podman, directory: str, *flags: str) -> list[str]:
    """What a container says, and whose its files are on the host."""
    shared = f"{directory}/{podman.runtime}"
    os.makedirs(shared)
    os.chmod(directory, 0o755)
    os.chmod(shared, 0o777)
    found = podman.ok("run", "--rm", "--network=none", "-v", f"{shared}:/srv", *flags, IMAGE,
                      "sh", "-c", FACTS).split("\n")  # fmt: skip
    made = os.stat(f"{shared}/made")
    return [*found, f"{made.st_uid}:{made.st_gid}"]


def test_map_of_users(podman, directory, same):
    """--uidmap and --gidmap: root is the host's user 100000, also in what it makes on volumes."""
    flags = ("--uidmap=0:100000:65536", "--gidmap=0:200000:65536")
    found = same(podman, lambda engine: facts(engine, directory, *flags))
    assert found[:2] == ["0 100000 65536", "0"]
    assert found[-1] == "100007:200008"


@pytest.mark.usefixtures("subordinate")
def test_automatic_map(podman, directory):
    """--userns=auto: a range of Podman's choice."""
    found = facts(podman, directory, "--userns=auto:size=2000")
    inside, outside, size = found[0].split(" ")
    assert (inside, size) == ("0", "2000")
    assert 300000 <= int(outside) < 500000
    assert found[-1] == f"{int(outside) + 7}:{int(outside) + 8}"


def test_network_of_a_mapped_container(podman):
    """Its network works: names, a low port, one published, and an address to ask."""
    flags = ("--uidmap=0:100000:65536", "-p", "127.0.0.1:18080:80")
    name = podman.up(*flags, IMAGE, "sh", "-c", "mkdir /www; echo hello >/www/index.html;"
                     "exec httpd -f -p 80 -h /www")  # fmt: skip
    address = podman.inspect(name)["NetworkSettings"]["IPAddress"]
    assert address in podman.sh(name, "ip addr")
    podman.until(lambda: podman.sh(name, "wget -qO- http://127.0.0.1/") == "hello")
    other = podman.ok("run", "--rm", IMAGE, "wget", "-qO-", f"http://{address}/")
    assert other == "hello"


def test_exec_and_copies_of_a_mapped_container(podman, directory):
    """What is added has the map too; copied files get owners inside of it."""
    name = podman.up("--network=none", "--uidmap=0:100000:65536", IMAGE, "sleep", "600")
    assert podman.sh(name, "tr -s ' ' </proc/self/uid_map") == "0 100000 65536"
    assert podman.ok("exec", "-u", "5:6", name, "id", "-u") == "5"
    with open(f"{directory}/file", "w", encoding="utf-8") as file:
        file.write("text")
    podman.ok("cp", f"{directory}/file", f"{name}:/root/file")
    assert podman.sh(name, "cat /root/file; stat -c ' %u:%g' /root/file") == "text 0:0"


def test_pod_with_one_user_namespace(podman):
    """Containers of a pod share its user namespace."""
    podman.ok("pod", "create", "--name", "pod", "--uidmap=0:100000:65536")
    for name in ("one", "two"):
        podman.ok("run", "-d", "--pod", "pod", "--name", name, IMAGE, "sleep", "600")
    seen = [podman.sh(name, "readlink /proc/self/ns/user; cat /proc/self/uid_map")
            for name in ("one", "two")]  # fmt: skip
    assert seen[0] == seen[1]
    assert seen[0].split()[1:] == ["0", "100000", "65536"]
