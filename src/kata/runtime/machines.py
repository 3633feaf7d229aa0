"""Which virtual machine a container gets: its shape, accelerator, guest image and template."""

from __future__ import annotations

import os

from kata.errors import GuestError, HostError, KataError, Unsupported
from kata.hypervisors.qemu import probe
from kata.machine.capabilities import BY_MACHINE_TYPE
from kata.machine.command_line import command_line, cpu_model
from kata.machine.description import Machine
from kata.machine.sizing import machine_memory, machine_vcpus, memory_for, most_memory
from kata.oci.defaults import DEFAULT_CAPABILITIES
from kata.runtime import guest_image
from kata.runtime.planning import is_settled, is_usual, preparation
from kata.runtime.seccomp import container_filter
from kata.runtime.store import POOL_SOCKET
from kata.runtime.template import Preparation, Template, Templates
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.config.settings import Config
    from kata.oci.pods import Shape
    from kata.runtime.guest_image import GuestImage
    from kata.runtime.pool import Member
    from kata.runtime.request import RunRequest

_MOST_SLOTS = 24  # as many disks as a PCI bus takes beside what else is wired


@record
class Launch:
    """All that is decided before a VMM is started; ``template`` is None for a cold boot."""

    machine: Machine
    program: str
    template: Template | None
    reason: str
    kernel_release: str
    settled: bool = False  # the template holds the container, but for its program


def describe(
    config: Config, image: GuestImage, *, vcpus: int, memory_mib: int, layers: int = 0
) -> Machine:
    """The machine for a container; its accelerator is still to be chosen.

    Raises ``Unsupported`` for too many layers, ``HostError`` for more memory than there is.
    """
    settings = config.hypervisor
    kind = BY_MACHINE_TYPE.get(settings.machine_type)
    return Machine(
        kernel=image.kernel,
        initrd=image.initrd,
        image_digest=image.digest,
        command_line="",
        machine_type=settings.machine_type,
        vcpus=machine_vcpus(vcpus),
        memory_mib=_memory(memory_mib),
        most_memory_mib=most_memory(_host_memory()) if kind and kind.memory_hotplug else 0,
        block_slots=_slots(layers, settings.block_slots),
    )


def _memory(wanted: int) -> int:
    """The shape that holds ``wanted``, or no more than that where the host has no more."""
    host = _host_memory()
    if wanted > host:
        raise HostError(
            f"a virtual machine of {wanted} MiB does not fit this host",
            why=f"it has {host} MiB of memory",
            hint="lower --memory (-m), or default_memory in the configuration",
        )
    shape = machine_memory(wanted)
    return shape if shape <= host else wanted


def _host_memory() -> int:
    """MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _slots(layers: int, step: int) -> int:
    """Wired disks: as configured, or the next multiple that holds all layers."""
    slots = max(step, -(-layers // step) * step)
    if layers > _MOST_SLOTS:
        raise Unsupported(
            f"the image has {layers} layers",
            why=f"a virtual machine takes {_MOST_SLOTS} disks at most",
            hint="squash the image, or unpack it and use --rootfs",
        )
    return min(slots, _MOST_SLOTS)


def accelerate(
    machine: Machine, config: Config, kernel_release: str, *, prove: bool = False
) -> Launch:
    """Choose QEMU and the accelerator; the first time it may take seconds (a guest is booted).

    With ``prove`` kvm is also tried where the configuration demands it. Raises ``HostError``,
    ``Unsupported`` for a machine that does not come up with what was chosen.
    """
    settings = config.hypervisor
    program = probe.locate(settings.path)

    def boot(accelerator: str) -> None:
        from kata.runtime import freeze

        words = command_line(accelerator, settings.kernel_params)
        tried = replace(machine, accelerator=accelerator, command_line=words)
        freeze.try_boot(tried, program, settings.uid_base, probe.PROBE_SECONDS)

    cache = f"{config.runtime.state_root}/cache"
    forced = prove and settings.accelerator == "kvm"
    wanted = "auto" if forced else settings.accelerator
    choice = probe.choose(machine, program, cache, wanted=wanted, boot=boot)
    if forced and choice.accelerator != "kvm":
        raise HostError(
            'the configured accelerator "kvm" does not work', why=choice.reason,
            hint='set accelerator to "auto" or "tcg" in the configuration',
        )  # fmt: skip
    if choice.accelerator == "tcg" and settings.machine_type == "microvm":
        raise Unsupported(
            'a machine of type "microvm" does not come up under emulation', why=choice.reason,
            hint='set machine_type to "pc" or "q35" in the configuration',
        )  # fmt: skip
    machine = replace(
        machine,
        accelerator=choice.accelerator,
        cpu_model=cpu_model(choice.accelerator),
        generation_id=choice.accelerator == "kvm" and settings.machine_type != "microvm",
        command_line=command_line(choice.accelerator, settings.kernel_params),
    )
    return Launch(machine, program, None, choice.reason, kernel_release)


def templates(config: Config, program: str) -> Templates:
    """The templates of this configuration."""
    return Templates(
        config.factory.template_path,
        program=program,
        uid=config.hypervisor.uid_base,
        modules=config.agent.kernel_modules,
    )


def with_share(machine: Machine, config: Config) -> Machine:
    """The machine for containers that have files of the host."""
    from kata.storage.choice import VIRTIO_9P, chosen

    kind = chosen(config.shared_fs.kind, config.shared_fs.daemon)
    return replace(machine, share_slot=kind == VIRTIO_9P)


def resolve(request: RunRequest, config: Config, *, say: Callable[[str], None]) -> Launch:
    """Everything decided for a request; makes the template if it is the first of its shape."""
    image = guest_image.find(config.runtime.guest_image, config.runtime.data_root)
    machine = describe(
        config,
        image,
        vcpus=request.machine_vcpus,
        memory_mib=memory_for(request.machine_memory)
        if request.memory_limited
        else request.machine_memory,
        layers=len(request.layers),
    )
    launch = accelerate(machine, config, image.kernel_release)
    if request.rootfs or request.container.volumes:
        launch = replace(launch, machine=with_share(launch.machine, config))
    if not (request.template and config.factory.enable_template):
        return launch
    known = templates(config, launch.program)
    if config.factory.image_templates and is_usual(request):
        found = _of_image(request, config, launch, known, say)
        if found is not None:
            return replace(launch, template=found, settled=is_settled(request))
    return replace(launch, template=_of_machine(launch.machine, known, say))


def resolve_shape(shape: Shape, config: Config, *, say: Callable[[str], None]) -> Launch:
    """Everything decided for the sandbox of an engine; makes the template if there is none."""
    launch = _shaped(shape, config)
    if not config.factory.enable_template:
        return launch
    known = templates(config, launch.program)
    return replace(launch, template=_of_machine(launch.machine, known, say))


def known_shape(shape: Shape, config: Config) -> Launch:
    """The same, but for a template that is not there."""
    launch = _shaped(shape, config)
    return replace(launch, template=templates(config, launch.program).find(launch.machine))


def _shaped(shape: Shape, config: Config) -> Launch:
    image = guest_image.find(config.runtime.guest_image, config.runtime.data_root)
    settings = config.hypervisor
    # a limit is no reservation: engines are given ones far above what a host has
    most = _host_memory() * 4 // 5
    limited = min(memory_for(-(-shape.memory // (1 << 20))), most) if shape.memory else 0
    machine = describe(
        config, image,
        vcpus=min(shape.cpus or settings.default_vcpus, os.cpu_count() or 1),
        memory_mib=max(limited, settings.default_memory),
    )  # fmt: skip
    if config.runtime.internetworking_model != "none":
        machine = replace(machine, nic_slots=settings.nic_slots)
    return accelerate(with_share(machine, config), config, image.kernel_release)


def ready(config: Config, launch: Launch) -> Member | None:
    """One that is ready, of the pool, for what was decided; loads nothing where there is none."""
    if not os.path.exists(f"{config.runtime.state_root}/{POOL_SOCKET}"):
        return None
    from kata.runtime import pool

    return pool.take(config, launch)


def _of_machine(machine: Machine, known: Templates, say: Callable[[str], None]) -> Template:
    return known.find(machine) or known.create(machine, say=say)


def _of_image(
    request: RunRequest, config: Config, launch: Launch, known: Templates,
    say: Callable[[str], None],
) -> Template | None:  # fmt: skip
    """A template in which the image's files are mounted; None if it cannot be made."""
    machine, seccomp = launch.machine, None
    if is_settled(request):
        seccomp = container_filter(
            request.seccomp, DEFAULT_CAPABILITIES, launch.kernel_release,
            data_root=config.runtime.data_root,
        )  # fmt: skip
    name, root = preparation(request, machine.block_slots, seccomp)
    prepared = replace(machine, prepared=name)
    found = known.find(prepared)
    if found is not None:
        return found
    base = _of_machine(machine, known, say)
    try:
        made = known.create(prepared, say=say, of=Preparation(base, request.layers, root))
    except KataError as error:
        if not isinstance(error, GuestError):  # else the run itself will say what the guest refuses
            say(f"no template for this image, going on without: {error}")
        return None
    known.keep(config.factory.image_templates)
    return made
