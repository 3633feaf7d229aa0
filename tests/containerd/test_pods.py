"""Pods over CRI: sandboxes with containers that come and go, what they share, how they end."""

from __future__ import annotations

import time

import pytest

from containerd.differences import differs
from support.cri import Error, until
from support.node import SANDBOXER


def test_exec(pod):
    """A command's output, both streams, and its exit code come back."""
    done = pod.exec("box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out", "err")
    with pytest.raises(Error) as error:
        pod.exec("box", "/no/such/program")
    assert "/no/such/program" in error.value.details()


def test_exec_that_takes_too_long(pod):
    """A command is ended when its time is over, and the container goes on."""
    start = time.monotonic()
    with pytest.raises(Error) as error:
        pod.exec("box", "sleep", "4711", timeout=1)
    assert "timeout" in error.value.details()
    assert time.monotonic() - start < 10
    until(lambda: "4711" not in pod.sh("box", "ps"))


def test_sandbox_status(pod, runtime):
    """The sandbox is ready, has an address, and what it was made with."""
    status = pod.sandbox()
    assert status.runtime_handler == runtime
    assert status.network.ip.startswith("10.91.")
    assert (status.state, status.metadata.namespace) == (0, "tests")
    assert status.created_at > 0
    assert pod.ip in pod.sh("box", "ip -4 -o addr show eth0")


def test_names_of_the_pod(make_pod):
    """Host name, name servers and search domains are the pod's in each container."""
    pod = make_pod(
        hostname="given-name",
        dns_config={"servers": ["10.1.2.3"], "searches": ["tests.local"], "options": ["ndots:5"]},
        linux={"sysctls": {"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shmmni": "77"}},
    )
    for name in ("one", "two"):
        pod.up(name, envs=[{"key": "WORD", "value": "given"}], working_dir="/var")
        words = pod.sh(name, "hostname; cat /etc/hostname; echo $WORD; pwd").split()
        assert words == ["given-name", "given-name", "given", "/var"]
        text = pod.sh(name, "cat /etc/resolv.conf")
        assert text.split("\n") == ["search tests.local", "nameserver 10.1.2.3", "options ndots:5"]
        words = pod.sh(name, "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shmmni")
        assert words.split() == ["2000", "3000", "77"]
    pod.end()


def test_five_containers(make_pod):
    """Five containers share network and shared memory; processes and roots are each one's own."""
    pod = make_pod()
    for number in range(5):
        page = f"mkdir /www; echo page-{number} >/www/index.html; echo {number} >/dev/shm/n{number}"
        pod.up(
            f"c{number}", "sh", "-c", f"{page}; exec httpd -f -h /www -p 127.0.0.1:{8000 + number}"
        )
    for number in range(5):
        until(
            lambda n=number: (
                pod.exec("c0", "wget", "-qO-", f"http://127.0.0.1:{8000 + n}").out == f"page-{n}"
            )
        )
    assert pod.sh("c4", "cat /dev/shm/n*").split() == [str(n) for n in range(5)]
    assert "8000" not in pod.sh("c4", "ps")
    assert pod.sh("c3", "cat /www/index.html") == "page-3"
    pod.end()


def test_shared_processes(make_pod):
    """With one PID namespace for the pod, all see all, the sandbox's own is the first."""
    shared = {"security_context": {"namespace_options": {"pid": "POD"}}}
    pod = make_pod(linux=shared)
    pod.up("one", "sleep", "1001")
    pod.up("two", "sh", "-c", 'trap "echo ended; exit 0" TERM; while :; do sleep 0.1; done')
    listing = pod.sh("two", "ps")
    assert "sleep 1001" in listing
    first = pod.sh("one", "cat /proc/1/cmdline")
    assert "sleep" not in first
    assert "pause" in first or SANDBOXER  # by the Sandbox API there is no image for it
    pod.sh("one", "kill $(ps | awk '/[t]rap/ { print $1 }')")
    assert pod.ended("two").exit_code == 0
    assert pod.state("one") == "running"
    pod.end()


def test_processes_of_a_target(make_pod):
    """A container for debugging sees the processes of its target, not the others'."""
    pod = make_pod()
    pod.up("one", "sleep", "1001")
    pod.up("two", "sleep", "1002")
    target = {"pid": "TARGET", "target_id": pod.ids["one"]}
    pod.up("debug", linux={"security_context": {"namespace_options": target}})
    listing = pod.sh("debug", "ps")
    assert ("sleep 1001" in listing, "sleep 1002" in listing) == (True, False)
    pod.end()


def test_states_and_reasons(make_pod):
    """Created, running, exited with a reason: completed, error, program that is missing."""
    pod = make_pod()
    pod.create("plain", "sleep", "0.1")
    assert pod.state("plain") == "created"
    pod.cri("StartContainer", container_id=pod.ids["plain"])
    status = pod.ended("plain")
    assert (status.exit_code, status.reason) == (0, "Completed")
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    pod.up("fails", "sh", "-c", "exit 12")
    status = pod.ended("fails")
    assert (status.exit_code, status.reason) == (12, "Error")
    with pytest.raises(Error) as error:
        pod.up("missing", "/no/such/program")
    assert "/no/such/program" in error.value.details()
    status = pod.status("missing")
    assert (status.exit_code, status.reason) == (128, "StartError")
    assert pod.ready()
    pod.end()


def test_out_of_memory(make_pod):
    """What uses more memory than it may is killed, and the reason says so."""
    pod = make_pod()
    words = "sleep 0.3; dd if=/dev/zero of=/dev/null bs=50M count=1"
    limits = {
        "resources": {"memory_limit_in_bytes": 20 << 20, "memory_swap_limit_in_bytes": 20 << 20}
    }
    pod.up("other")
    pod.up("greedy", "sh", "-c", words, linux=limits)
    status = pod.ended("greedy")
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert pod.sh("other", "echo well") == "well"
    pod.end()


def test_replaced_containers(make_pod):
    """Containers are stopped, removed and made anew in the same sandbox, also the last one."""
    pod = make_pod()
    address = pod.ip
    for attempt in range(3):
        pod.up("box", metadata={"attempt": attempt})
        assert pod.sh("box", "ls /tmp; touch /tmp/mine") == ""
        pod.stop("box")
        assert pod.ended("box").exit_code == 137
        assert pod.ready()
        pod.remove("box")
    pod.up("box", metadata={"attempt": 3})
    assert address in pod.sh("box", "ip -4 -o addr show eth0")
    pod.end()


def test_removal_of_what_runs(make_pod):
    """A running container and a running sandbox are removed by force; removal twice is no error."""
    pod = make_pod()
    pod.up("box")
    box = pod.ids["box"]
    pod.remove("box")
    pod.cri("RemoveContainer", container_id=box)
    pod.up("other")
    pod.end()
    pod.cri("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert pod.id not in [item.id for item in pod.cri("ListPodSandbox").items]


def test_sandbox_made_anew(make_pod):
    """A sandbox that was stopped is no longer ready; the next attempt takes its place."""
    pod = make_pod()
    pod.up("box")
    pod.cri("StopPodSandbox", pod_sandbox_id=pod.id)
    assert not pod.ready()
    assert pod.ended("box").exit_code == 137
    with pytest.raises(Error):
        pod.up("late")
    first = pod.id
    pod.config["metadata"]["attempt"] = 1
    pod.id = pod.run()
    pod.up("box", metadata={"attempt": 1})
    assert pod.sh("box", "echo well") == "well"
    pod.cri("RemovePodSandbox", pod_sandbox_id=first)
    assert pod.sh("box", "echo well") == "well"
    pod.end()


def test_restarted_daemon(make_pod, containerd):
    """Pods outlive containerd: they take commands and containers, and tell how they ended."""
    pod = make_pod()
    pod.up("box")
    pod.up("late", "sh", "-c", "sleep 0.7; exit 9")
    containerd.end(kill=True)
    time.sleep(1)
    containerd.start()
    assert pod.ready()
    assert pod.sh("box", "echo well") == "well"
    assert pod.ended("late").exit_code == 9
    pod.up("new")
    assert pod.sh("new", "hostname") == pod.config["hostname"]
    pod.stop("box")
    assert pod.ended("box").exit_code == 137
    pod.end()


def test_one_stop_signal(make_pod):
    """A grace period: one SIGTERM, at its end SIGKILL; who obeys ends early with its code."""
    pod = make_pod()
    pod.up("stubborn", "probe", "count")
    pod.up("docile", "sh", "-c", 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done')
    for name in ("stubborn", "docile"):
        pod.logged(name, "ready")
    start = time.monotonic()
    pod.stop("docile", grace=30)
    assert time.monotonic() - start < 10
    assert pod.ended("docile").exit_code == 6
    start = time.monotonic()
    pod.stop("stubborn", grace=2)
    assert 1.9 < time.monotonic() - start < 10
    assert pod.ended("stubborn").exit_code == 137
    assert [line.text for line in pod.log("stubborn")] == ["ready", "SIGTERM"]
    pod.stop("stubborn", grace=2)  # once more is no error
    pod.end()


def test_processes_and_objects_of_the_host(make_pod, runtime):
    """A pod in the host's PID and IPC namespaces: the host's with runc, its machine's with us."""
    options = {"pid": "NODE", "ipc": "NODE"}
    pod = make_pod(linux={"security_context": {"namespace_options": options}})
    pod.up("box", "sleep", "1001")
    listing = pod.sh("box", "ps")
    assert "sleep 1001" in listing
    assert ("containerd" in listing) != differs(runtime, "host-pid")
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        same = file.read().strip() == pod.sh("box", "cat /proc/sys/kernel/random/boot_id")
    assert same != differs(runtime, "host-ipc")
