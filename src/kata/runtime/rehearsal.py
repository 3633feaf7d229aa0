"""What a guest goes through before it is parked: containers that are thrown away.

A shell of the host's, with the libraries it needs, in a root of its own that is shared with the
guest: it writes, reads, forks, is joined by another process, is signalled. The rule: what an engine
will ask of the guest is asked once before, and nothing of it is left but that its code is known.
A guest may keep hold of what it was shown: the root, which all members see, cannot be written by
any; what is written is each one's own. The same root is the layer of an image for the containers of
``kata run``, on the last of the wired disks: what comes later is put behind disks never read.
"""

from __future__ import annotations

import os

from kata.errors import HostError, KataError
from kata.oci.defaults import ContainerRequest, ProcessRequest, container_spec
from kata.runtime.bundle_workload import BundleWorkload
from kata.runtime.container import Container
from kata.runtime.control_api import ExecRequest
from kata.runtime.pod import tell_guest
from kata.runtime.request import RunRequest
from kata.runtime.run_workload import RunWorkload
from kata.runtime.seccomp import container_filter
from kata.runtime.store import ContainerState
from kata.storage.plan import Directory
from kata.wire.agent_api import UpdateNetworkRequest
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
LAYER = "layer.erofs"


def make_root(directory: str, pack: Callable[[str, str], object]) -> None:
    """Make the bundle's files, unless they are there. Raises ``HostError``, and as ``pack``.

    ``pack`` makes the second, an image's layer, of the first, a directory; or it does not.
    """
    if os.path.exists(f"{directory}/{LAYER}"):
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
        pack(f"{new}/rootfs", f"{new}/{LAYER}")
        rmtree(directory, ignore_errors=True)
        os.rename(new, directory)
    except KataError:
        rmtree(new, ignore_errors=True)
        raise
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
    layer = f"{bundle}/{LAYER}"
    images = sandbox.last_slot >= 0 and os.path.exists(layer)
    for number in range(_TIMES):
        if images:
            _run_image(sandbox, number, layer, data_root)
            told = sandbox.tell_network()  # brings back the cards that were out of sight
            if told is not None:
                told.result(sandbox.create_timeout)
            sandbox.keep_ready()
        _run(sandbox, _workload(f"rehearsal-{number}", bundle, scratch, data_root))
        sandbox.keep_ready()
    # without a last one, an engine's first container takes 25 ms longer: a card was brought back
    _run(sandbox, _workload("rehearsal-last", bundle, scratch, data_root))
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
    _end(sandbox, container)


def _run_image(sandbox: Sandbox, number: int, layer: str, data_root: str) -> None:
    """A container as ``kata run`` has them: of an image's layer, and without a network."""
    name = f"rehearsal-image-{number}"
    process = ProcessRequest((_SHELL, "-c", "echo done"))
    files = tuple((f"/etc/{file}", b"127.0.0.1 localhost\n") for file in FILES)
    request = RunRequest(
        name, name, name, ContainerRequest(process, name), layers=(layer,), files=files
    )
    workload = RunWorkload(request, data_root)
    workload.deferred, workload.guest_name = True, name
    workload.first_slot = sandbox.last_slot
    client = sandbox.client
    told = client.start("UpdateNetwork", UpdateNetworkRequest())
    plan = sandbox.add(workload)
    container = Container(client, workload.id)
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    client.cork()
    created, started = container.begin(plan), container.start()
    container.attach(container.init, {1: null, 2: os.dup(null)})
    client.uncork()
    for call in (told, created, started):
        call.result(sandbox.create_timeout)
    _end(sandbox, container)


def _end(sandbox: Sandbox, container: Container) -> None:
    """Wait for a container's end, which is a good one, and leave nothing of it."""
    end = container.init.wait()
    container.init.drain()
    container.delete()
    sandbox.remove(container.id)
    if end.exit_code:
        raise KataError("the rehearsal of a container failed", why=f"exit code {end.exit_code}")


def _add(container: Container, workload: _Rehearsed) -> None:
    wanted = ExecRequest(arguments=[_SHELL, "-c", "echo added"])
    streams = {1: os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)}
    process = container.exec(workload.exec_request(wanted, streams), streams)
    process.wait()
    process.drain()
    container.forget(process)
