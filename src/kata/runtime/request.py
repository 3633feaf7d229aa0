"""What a supervisor is asked to run: one frozen value, complete before anything is started."""

from __future__ import annotations

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.oci.defaults import ContainerRequest


@record
class RunRequest:
    """A container and the virtual machine for it.

    ``layers`` are EROFS files, lowest first, or ``rootfs`` is a directory. ``passwd`` and
    ``group`` are the texts that names of users are looked up in. ``seccomp``: empty for
    the default profile, ``unconfined``, or a file. ``machine_memory`` is MiB: what the
    container may use if ``memory_limited``, else the size of the whole machine. ``files`` are
    (path, content) that the container gets of its own.
    """

    id: str
    name: str
    image: str
    container: ContainerRequest
    layers: tuple[str, ...] = ()
    rootfs: str = ""
    passwd: str = ""
    group: str = ""
    seccomp: str = ""
    init: bool = False
    domainname: str = ""
    stop_signal: int = 15
    files: tuple[tuple[str, bytes], ...] = ()
    machine_vcpus: int = 1
    machine_memory: int = 512
    memory_limited: bool = False
    template: bool = True
    stdin: bool = False
    logged: bool = False
