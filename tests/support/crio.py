"""A pod as CRI-O keeps one: conmon and the runtime called with the very words CRI-O uses.

The one rule: nothing is done that CRI-O does not do. Source: CRI-O 1.28 to 1.34,
``internal/oci/runtime_oci.go`` and ``server/sandbox_run_linux.go``: namespaces are pinned to files
before any container is there, and a pod whose containers have process ids of their own gets no
first container (``drop_infra_ctr``, the default).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from typing import Any

from support.host import need_tool
from support.vm import Result

TYPE, SANDBOX = "io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"
PATIENCE = 90
DIRECTORIES = ("exits", "attach", "logs")
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
     "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
     "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
]  # fmt: skip


class Pod:
    """A pod: namespaces in files, and containers that come and go."""

    def __init__(self, place, runtime: str, rootfs: str, root: str) -> None:
        self.place, self.runtime, self.rootfs, self.root = place, runtime, rootfs, root
        self.id = os.urandom(32).hex()
        self.directory = f"{place.directory}/{self.id}"
        for name in DIRECTORIES:
            os.makedirs(f"{self.directory}/{name}")
        self.pinned = {kind: f"/run/{kind}ns/{self.id}" for kind in ("net", "ipc", "uts")}
        self._pin()

    def _pin(self) -> None:
        """What ``pinns`` does."""
        words = [f"--{kind}={path}" for kind, path in self.pinned.items()]
        script = "".join(
            f"mkdir -p {os.path.dirname(path)}; touch {path}; " for path in self.pinned.values()
        )
        start = "hostname the-pod; ip link set lo up"
        self.place.run("sh", "-c", f"{script} unshare {' '.join(words)} sh -c '{start}'")

    def unpin(self) -> None:
        """Let the namespaces go."""
        for path in self.pinned.values():
            self.place.run("sh", "-c", f"umount {path}; rm -f {path}")

    def container(self, *args: str, **changes: Any) -> Container:
        """A container of the pod, not made yet."""
        return Container(self, self._spec(args, changes))

    def _spec(self, args: tuple[str, ...], changes: dict[str, Any]) -> dict[str, Any]:
        text = self.place.run(self.runtime, "spec", "--bundle", self._empty()).stdout
        assert text == ""
        with open(f"{self._empty()}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        os.unlink(f"{self._empty()}/config.json")
        shared = [{"type": "network" if kind == "net" else kind, "path": path}
                  for kind, path in self.pinned.items()]  # fmt: skip
        spec["process"].update(terminal=False, args=list(args))
        spec["root"] = {"path": self.rootfs}
        spec["mounts"] = [*_MOUNTS, *self._binds()]
        spec["hostname"] = "the-pod"
        spec["annotations"] = {
            TYPE: "container", SANDBOX: self.id, "io.container.manager": "cri-o",
            "io.kubernetes.pod.name": "the-pod",
        }  # fmt: skip
        spec["linux"]["namespaces"] = [{"type": "pid"}, {"type": "mount"}, *shared]
        spec["linux"]["cgroupsPath"] = f"/kata-test-crio-{os.getpid()}/{self.id[:12]}"
        spec.update(changes)
        return spec

    def _empty(self) -> str:
        path = f"{self.directory}/empty"
        os.makedirs(path, exist_ok=True)
        return path

    def _binds(self) -> list[dict[str, Any]]:
        """Files of the pod that every container gets."""
        shm = f"{self.directory}/shm"
        os.makedirs(shm, exist_ok=True)
        with open(f"{self.directory}/resolv.conf", "w", encoding="utf-8") as file:
            file.write("nameserver 192.0.2.53\n")
        options = ["rw", "bind", "nosuid", "noexec", "nodev"]
        return [
            {"destination": "/etc/resolv.conf", "type": "bind", "options": options,
             "source": f"{self.directory}/resolv.conf"},
            {"destination": "/dev/shm", "type": "bind", "options": options, "source": shm},
        ]  # fmt: skip


class Container:
    """One container of a pod, by the calls of CRI-O's ``runtimeOCI``."""

    def __init__(self, pod: Pod, spec: dict[str, Any]) -> None:
        self.pod = pod
        self.id = os.urandom(32).hex()
        self.spec = spec
        self.bundle = f"{pod.directory}/{self.id}"
        self.log = f"{pod.directory}/logs/{self.id}.log"
        os.makedirs(self.bundle)
        with open(f"{self.bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def create(self) -> int:
        """CreateContainer; the pid that conmon was told. A refusal is an ``AssertionError``."""
        words = ["-b", self.bundle, "-c", self.id, "--exit-dir", f"{self.pod.directory}/exits",
                 "-l", self.log, "--log-level", "info", "-n", "name",
                 "-P", f"{self.bundle}/conmon-pidfile", "-p", f"{self.bundle}/pidfile",
                 "--persist-dir", self.bundle, "-r", self.pod.runtime,
                 "--runtime-arg", f"--root={self.pod.root}",
                 "--socket-dir-path", f"{self.pod.directory}/attach", "-u", self.id]  # fmt: skip
        said = self._conmon(words)
        assert said.get("pid", said.get("data", -1)) > 0, said
        return said.get("pid") or said["data"]

    def exec_sync(self, *args: str) -> tuple[int, str]:
        """ExecSyncContainer: the exit code, and the log's lines without their marks."""
        log = f"{self.bundle}/exec.log"
        words = ["-c", self.id, "-n", "name", "-r", self.pod.runtime, "-p", f"{self.bundle}/epid",
                 "-e", "-l", log, "--socket-dir-path", f"{self.pod.directory}/attach",
                 "--log-level", "info", "--sync", "--exec-process-spec", self._process(args),
                 "--runtime-arg", f"--root={self.pod.root}"]  # fmt: skip
        said = self._conmon(words)
        code = said.get("exit_code", said.get("data", -1))
        with open(log, encoding="utf-8") as file:
            lines = [line.split(" ", 3)[3] for line in file]
        os.unlink(log)
        return code, "".join(lines)

    def exec(self, *args: str, input: bytes = b"") -> Result:
        """ExecContainer: streams are the runtime's own."""
        argv = ["--root", self.pod.root, "exec", "--process", self._process(args), self.id]
        done = subprocess.run(
            self.pod.place.argv(self.pod.runtime, *argv), env=self.pod.place.env, input=input,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def runtime(self, *words: str, input: str | None = None):
        """A call of the runtime itself."""
        return self.pod.place.run(
            self.pod.runtime, "--root", self.pod.root, *words, input=input, check=False,
            timeout=PATIENCE,
        )  # fmt: skip

    def ok(self, *words: str, input: str | None = None) -> str:
        """A call that must succeed; its output."""
        done = self.runtime(*words, input=input)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def state(self) -> dict[str, Any]:
        """UpdateContainerStatus."""
        return json.loads(self.ok("state", self.id))

    def exit_code(self) -> int:
        """The code that conmon wrote, once it has."""
        path = f"{self.pod.directory}/exits/{self.id}"
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(path):
            assert time.monotonic() < deadline, "conmon wrote no exit file"
            time.sleep(0.05)
        with open(path, encoding="utf-8") as file:
            return int(file.read())

    def output(self) -> str:
        """What the container wrote, from conmon's log."""
        with open(self.log, encoding="utf-8") as file:
            return "".join(line.split(" ", 3)[3] for line in file)

    def stop(self) -> int:
        """StopContainer: the signal, then by force; the exit code."""
        self.runtime("kill", self.id, "TERM")
        with contextlib.suppress(AssertionError):
            if self.state()["status"] == "running":
                self.runtime("kill", self.id, "KILL")
        return self.exit_code()

    def delete(self) -> None:
        """DeleteContainer."""
        self.ok("delete", "--force", self.id)

    def _process(self, args: tuple[str, ...]) -> str:
        path = f"{self.bundle}/process.json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**self.spec["process"], "args": list(args)}, file)
        return path

    def _conmon(self, words: list[str]) -> dict[str, Any]:
        """Start conmon as CRI-O does; what it answers."""
        ours, theirs = os.pipe()
        start, go = os.pipe()
        env = self.pod.place.env | {"_OCI_SYNCPIPE": str(theirs), "_OCI_STARTPIPE": str(start)}
        with open(f"{self.bundle}/conmon.err", "wb") as said:
            process = subprocess.Popen(
                self.pod.place.argv(need_tool("conmon"), *words), env=env, cwd=self.bundle,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=(theirs, start),
            )  # fmt: skip
        os.close(theirs)
        os.close(start)
        os.write(go, b"\0")
        os.close(go)
        with open(ours, "rb") as answer:
            text = answer.readline()
        process.wait(PATIENCE)
        with open(f"{self.bundle}/conmon.err", encoding="utf-8") as said:
            assert text, f"conmon said nothing: {said.read()}"
        return json.loads(text)
