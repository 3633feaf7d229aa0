"""What a guest goes through before it is parked: containers that are thrown away.

A shell of the host's, with the libraries it needs, in a root of its own that is shared with the
guest: it writes, reads, forks, is joined by another process, is signalled. The rule: what an engine
will ask of the guest is asked once before, and nothing of it is left but that its code is known.
A guest may keep hold of what it was shown: the root, which all members see, cannot be written by
any; what is written is each one's own.
"""

from __future__ import annotations

import os

from kata.errors import HostError, KataError
from kata.oci.defaults import ContainerRequest, ProcessRequest, container_spec
from kata.runtime.bundle_workload import BundleWorkload
from kata.runtime.container import Container
from kata.runtime.control_api import ExecRequest
from kata.runtime.pod import tell_guest
from kata.runtime.seccomp import container_filter
from kata.runtime.store import ContainerState
from kata.storage.plan import Directory
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.runtime.sandbox import Sandbox
    from kata.storage.plan import Disk
    from kata.storage.sources import Source
    from kata.wire.agent_api import Seccomp

_SHELL = "/bin/sh"
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_SCRIPT = "echo begun; (exit 3); echo $(echo forked) >/tmp/file; read line; read line </tmp/file"
_TIMES = 2  # what the template holds prepared is used up by the first
_TERM = 15
FILES = ("hostname", "hosts", "resolv.conf")


def make_root(directory: str) -> None:
    """Make the bundle's files, unless they are there. Raises ``HostError``."""
    if os.path.isdir(directory):
        return
    from shutil import copy2, rmtree

    new = f"{directory}.{os.getpid()}.new"
    try:
        for path in ("etc", "proc", "sys", "dev", "tmp"):
            os.makedirs(f"{new}/rootfs/{path}")
        for path in (_SHELL, *_libraries(_SHELL)):
            os.makedirs(f"{new}/rootfs{os.path.dirname(path)}", exist_ok=True)
            copy2(os.path.realpath(path), f"{new}/rootfs{path}")
        for name in FILES:
            for path in (f"{new}/{name}", f"{new}/rootfs/etc/{name}"):
                with open(path, "w", encoding="ascii") as file:
                    file.write("127.0.0.1 localhost\n")
        os.rename(new, directory)
    except OSError as error:
        rmtree(new, ignore_errors=True)
        raise HostError(f'cannot make "{directory}"', why=error.strerror or str(error)) from None


def _libraries(program: str) -> list[str]:
    """The loader, and what it loads for a program."""
    from subprocess import run

    loader = next((path for path in _LOADERS if os.path.exists(path)), "")
    if not loader:
        return []
    listed = run([loader, "--list", program], capture_output=True, text=True, check=False).stdout
    found = [word for word in listed.split() if word.startswith("/")]
    return list(dict.fromkeys([loader, *found]))


class _Rehearsed(BundleWorkload):
    """With Docker's own filter, as most containers have it, and a root that cannot be written."""

    def _root(self) -> tuple[Directory | Disk, list[Source]]:
        root, pinned = super()._root()
        assert isinstance(root, Directory)
        return replace(root, readonly=True), pinned

    def create_request(self, *words: Any, **more: Any) -> Any:
        """As an engine's."""
        request = super().create_request(*words, **more)
        bounding = self.spec["process"]["capabilities"]["bounding"]
        self._seccomp = self.filter(bounding, words[1])
        request.seccomp = self._seccomp
        return request

    def filter(self, capabilities: list[str], kernel_release: str) -> Seccomp | None:
        """The one compiled already, if it was."""
        return container_filter("", capabilities, kernel_release, data_root=self.data_root)


def rehearse(sandbox: Sandbox, bundle: str, scratch: str, data_root: str) -> None:
    """Bring a launched sandbox up, and have it run containers. Raises what does not work.

    ``bundle`` is ``make_root``'s; ``scratch`` a directory that only this sandbox ever sees.
    """
    sandbox.connect()
    tell_guest(sandbox)
    sandbox.keep_ready()
    for number in range(_TIMES):
        _run(sandbox, _workload(f"rehearsal-{number}", bundle, scratch, data_root))
        sandbox.keep_ready()
    sandbox.correct_clock()


def _workload(name: str, bundle: str, scratch: str, data_root: str) -> _Rehearsed:
    spec = container_spec(ContainerRequest(ProcessRequest((_SHELL, "-c", _SCRIPT)), name))
    shared = {f"/etc/{file}": (f"{bundle}/{file}", "ro") for file in FILES}
    shared["/tmp"] = (scratch, "rw")
    spec["mounts"] += [
        {"destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate", how]}
        for at, (source, how) in shared.items()
    ]
    state = ContainerState(id=name, name=name, bundle=bundle, rootfs=f"{bundle}/rootfs")
    return _Rehearsed(state, spec, data_root)


def _run(sandbox: Sandbox, workload: _Rehearsed) -> None:
    """A container from its making to its end, with a process added."""
    client = sandbox.client
    container = Container(client, workload.id)
    plan = sandbox.add(workload)
    plan.stdin = True
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        client.cork()
        created = container.begin(plan)
        container.attach(container.init, {0: reader, 1: null, 2: os.dup(null)})
        client.uncork()
        created.result(sandbox.create_timeout)
        container.start().result(sandbox.create_timeout)
        _add(container, workload)
        container.signal(_TERM)  # which pid 1 of a namespace does not feel
        container.stats()
    finally:
        os.close(writer)
    end = container.init.wait()
    container.init.drain()
    container.delete()
    sandbox.remove(workload.id)
    if end.exit_code:
        raise KataError("the rehearsal of a container failed", why=f"exit code {end.exit_code}")


def _add(container: Container, workload: _Rehearsed) -> None:
    wanted = ExecRequest(arguments=[_SHELL, "-c", "echo added"])
    streams = {1: os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)}
    process = container.exec(workload.exec_request(wanted, streams), streams)
    process.wait()
    process.drain()
    container.forget(process)
