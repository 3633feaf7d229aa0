"""Templates: booted, quiet virtual machines frozen to files, of which sandboxes are copies.

The one rule: a template is complete and unchanged, or it is not used: its directory appears by one
rename, its manifest names what it was made of and the identity of its files.

    templates = Templates(config.factory.template_path, program=qemu)
    template = templates.find(machine) or templates.create(machine, say=print_line)
    with template.open() as frozen:            # or template.open(private_copy=True), for virtio-fs
        vm = start(machine, Bindings(memory=frozen.memory, state=frozen.state, ...), options)
        vm.wait_ready(timeout)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.machine.description import Machine


class Frozen:
    """Open descriptors of a template: ``memory`` and ``state``; a context manager."""

    memory: int
    state: int

    def close(self) -> None:
        """Close them; what is mapped stays mapped."""
        raise NotImplementedError


class Template:
    """One verified template."""

    key: str
    directory: str

    def open(self, *, private_copy: bool = False) -> Frozen:
        """Descriptors to start a clone with; ``private_copy``: writable memory of its own (memfd)."""
        raise NotImplementedError


class Templates:
    """The templates under one directory."""

    def __init__(self, root: str, *, program: str, uid: int) -> None:
        """``program`` is QEMU; ``uid`` the user that QEMU runs as while a template is made."""
        raise NotImplementedError

    def find(self, machine: Machine) -> Template | None:
        """The template for such machines if there is a sound one (damaged: None). Takes 1 ms."""
        raise NotImplementedError

    def create(
        self, machine: Machine, *, modules: tuple[str, ...] = (), say: Callable[[str], None]
    ) -> Template:
        """Make it, or wait for another process that is making it. Forks; takes seconds.

        Raises ``HypervisorError``, ``AgentError``, ``HostError``.
        """
        raise NotImplementedError

    def status(self) -> list[dict[str, object]]:
        """What there is: key, path, machine, sizes in bytes, made when, sound or not."""
        raise NotImplementedError

    def collect(self) -> list[str]:
        """Remove what no longer fits (another image, QEMU or version) and half-made ones: the keys."""
        raise NotImplementedError

    def destroy(self) -> list[str]:
        """Remove all: the keys."""
        raise NotImplementedError
