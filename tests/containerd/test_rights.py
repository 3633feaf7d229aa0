"""Security contexts over CRI: users, capabilities, seccomp, what is read-only, privileges."""

from __future__ import annotations

import json

import pytest

from containerd.differences import differs

STATUS = "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs|Groups):' /proc/self/status"
PLAIN_DEVICES = {
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
    "stdin", "stdout", "termination-log", "tty", "urandom", "zero",
}  # fmt: skip


def rights(**context: object) -> dict:
    """The change to a container's configuration that sets its security context."""
    return {"linux": {"security_context": context}}


def status(pod, **context: object) -> dict[str, str]:
    """What the kernel says of a container's first process."""
    done = pod.once(STATUS, **rights(**context))
    assert done.code == 0, done.err
    return {name: value.strip() for name, value in (l.split(":") for l in done.out.splitlines())}


def test_user_and_groups(pod):
    """A process has the user, the group and more groups that it was given."""
    given = rights(
        run_as_user={"value": 1000}, run_as_group={"value": 50}, supplemental_groups=[4242]
    )
    words = pod.once(
        "id -u; id -g; id -G; touch /root/x 2>/dev/null || echo no", **given
    ).out.split()
    assert words[:2] == ["1000", "50"]
    assert {"50", "4242"} <= set(words[2:-1])
    assert words[-1] == "no"
    assert pod.once("id -un; id -u", **rights(run_as_username="ann")).out.split() == ["ann", "1000"]
    pod.up("user", **given)
    assert pod.sh("user", "id -u; id -g").split() == ["1000", "50"]  # what is added too
    pod.remove("user")


@pytest.mark.parametrize(
    ("change", "has", "lacks"),
    [
        ({}, {0, 10}, {12, 21}),
        ({"add_capabilities": ["NET_ADMIN"]}, {0, 12}, {21}),
        ({"drop_capabilities": ["CHOWN"]}, {10}, {0, 12}),
        (
            {"add_capabilities": ["NET_BIND_SERVICE"], "drop_capabilities": ["ALL"]},
            {10},
            {0, 12, 21},
        ),
    ],
    ids=["plain", "added", "dropped", "only-one"],
)
def test_capabilities(pod, change, has, lacks):
    """Capabilities are added and dropped (0 chown, 10 bind, 12 network, 21 administration)."""
    effective = int(status(pod, capabilities=change)["CapEff"], 16)
    assert all(effective >> number & 1 for number in has)
    assert not any(effective >> number & 1 for number in lacks)


def test_seccomp(pod, directory):
    """The default filter, none, and one of the node's own hold as named."""
    assert status(pod, seccomp={"profile_type": "RuntimeDefault"})["Seccomp"] == "2"
    assert status(pod, seccomp={"profile_type": "Unconfined"})["Seccomp"] == "0"
    forbids = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}
    with open(f"{directory}/own.json", "w", encoding="utf-8") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [forbids]}, file)
    own = {"profile_type": "Localhost", "localhost_ref": f"{directory}/own.json"}
    done = pod.once("mkdir /tmp/x; touch /tmp/y && echo made", **rights(seccomp=own))
    assert "No message of desired type" in done.err  # errno 42
    assert done.out == "made"


def test_default_filter_forbids(pod):
    """What the default filter forbids fails, and works without it."""
    words = "unshare -U true 2>/dev/null && echo done || echo refused"
    assert pod.once(words, **rights(seccomp={"profile_type": "RuntimeDefault"})).out == "refused"
    assert pod.once(words, **rights(seccomp={"profile_type": "Unconfined"})).out == "done"


def test_no_new_privileges(pod):
    """The flag is set when asked for."""
    assert status(pod, no_new_privs=True)["NoNewPrivs"] == "1"
    assert status(pod, no_new_privs=False)["NoNewPrivs"] == "0"


def test_read_only_root(pod):
    """A root that is read-only cannot be written, mounts can."""
    words = "touch /x 2>/dev/null || echo shut; touch /dev/shm/x && echo open"
    assert pod.once(words, **rights(readonly_rootfs=True)).out.split() == ["shut", "open"]
    assert pod.once("touch /x && echo open").out == "open"


def test_masked_and_read_only_paths(pod):
    """Paths that are masked are empty, those that are read-only cannot be written."""
    words = (
        "wc -c </proc/timer_list; ls /sys/firmware | wc -l; touch /home/x 2>/dev/null || echo shut"
    )
    masked = {"masked_paths": ["/proc/timer_list", "/sys/firmware"], "readonly_paths": ["/home"]}
    assert pod.once(words, **rights(**masked)).out.split() == ["0", "0", "shut"]


def test_system_is_read_only(pod):
    """/sys and /proc/sys cannot be written by an ordinary container."""
    words = (
        "echo 1 2>/dev/null >/proc/sys/vm/drop_caches || echo shut; mkdir /sys/fs/x || echo shut"
    )
    assert pod.once(words).out.split() == ["shut", "shut"]


def test_privileged(make_pod, runtime):
    """All capabilities, no filter, /proc/sys writable; devices of the host with runc alone."""
    pod = make_pod(linux={"security_context": {"privileged": True}})
    pod.up("box", **rights(privileged=True))
    words = pod.sh("box", STATUS)
    assert "Seccomp:\t0" in words
    effective = int(words.split("CapEff:")[1].split()[0], 16)
    assert effective >> 21 & 1
    assert effective >> 16 & 1
    pod.sh("box", "mkdir -p /mnt && mount -t tmpfs tmpfs /mnt && touch /mnt/x")
    assert (
        pod.sh("box", "cd /proc/sys/net/ipv4; echo 61 >ip_default_ttl; cat ip_default_ttl") == "61"
    )
    devices = set(pod.sh("box", "ls /dev").split())
    if differs(runtime, "privileged"):
        assert devices <= PLAIN_DEVICES
    else:
        assert "kmsg" in devices
    pod.end()
