"""The settings table: every setting there is, once, with its default, help and check.

The one rule: whatever else knows of settings (the file, the reference page, validation, the
records, what annotations may set) is derived from these classes. Names in the file are those of
Kata Containers where it has the setting. Sizes are MiB, times seconds.
"""

from __future__ import annotations

from kata.config.group import (
    ABSOLUTE,
    ABSOLUTE_OR_EMPTY,
    ALWAYS,
    ARGUMENTS,
    LISTED,
    NAMES,
    ONE_LINE,
    Group,
    Setting,
    between,
    boolean,
    integer,
    one_of,
    strings,
    text,
)
from kata.wire.record import record

PATH = "/etc/kata-containers/configuration.toml"
DROP_INS = "config.d"  # beside the file
ENVIRONMENT = "KATA_CONFIG"


class Hypervisor(Group):
    """The virtual machine monitor and the machine it makes."""

    SECTION = "hypervisor.qemu"

    path: str = text(
        "", "QEMU's program; empty: the first qemu-system-x86_64 on the PATH",
        check=ABSOLUTE_OR_EMPTY,
    )  # fmt: skip
    machine_type: str = text(
        "pc", "the board of the virtual machine", check=one_of("pc", "q35", "microvm"),
        annotation=LISTED,
    )  # fmt: skip
    accelerator: str = text(
        "auto",
        "how guest code is run: by the processor (kvm) or by translation (tcg); "
        "auto: kvm where a guest has been seen to boot with it",
        check=one_of("auto", "kvm", "tcg"),
    )
    default_vcpus: int = integer(
        1, "processors of a virtual machine", check=between(1, 240), annotation=LISTED
    )
    default_memory: int = integer(
        512,
        "memory of a virtual machine, MiB; raised to the next of 256, 512, 1024, 2048, 4096, …",
        check=between(128, 1 << 20), annotation=LISTED,
    )  # fmt: skip
    kernel_params: str = text(
        "", "words added to the guest's kernel command line", check=ONE_LINE, annotation=LISTED
    )
    boot_timeout: int = integer(
        60, "how long a guest may take to boot, seconds", check=between(1, 3600)
    )
    uid_base: int = integer(
        2000000000,
        "first of the user ids that monitors run as, one for each sandbox",
        check=between(1000, 4290000000),
    )
    uid_count: int = integer(
        65536, "how many user ids there are from uid_base on", check=between(1, 1 << 20)
    )
    seccomp_sandbox: bool = boolean(True, "run QEMU with its own system call filter on")
    block_slots: int = integer(
        4, "disks wired into a template, for image layers and volumes", check=between(1, 24)
    )
    nic_slots: int = integer(
        1, "network cards wired into the template of sandboxes with a network", check=between(1, 8)
    )
    enable_annotations: tuple[str, ...] = strings(
        ("default_memory", "default_vcpus", "kernel_params"),
        "settings of this section that annotations may change (regular expressions)",
        check=ARGUMENTS,
    )


class SharedFs(Group):
    """The directory tree shared with the guest."""

    SECTION = "hypervisor.qemu"

    kind: str = text(
        "auto", "how directories of the host reach the guest: virtio-fs by a daemon of its own;"
        " virtio-9p by QEMU itself, which then has rights over files; auto: virtio-fs, or virtio-9p"
        " where no daemon is found; none: not at all",
        check=one_of("auto", "virtio-fs", "virtio-9p", "none"), toml="shared_fs",
        annotation=LISTED,
    )  # fmt: skip
    daemon: str = text(
        "", "the virtio-fs daemon; empty: the first virtiofsd in the usual places",
        check=ABSOLUTE_OR_EMPTY, toml="virtio_fs_daemon",
    )  # fmt: skip
    cache: str = text(
        "auto", "how long the guest trusts sizes and names: a second, not at all (coherent;"
        " never: nor contents), for ever",
        check=one_of("auto", "coherent", "never", "always"), toml="virtio_fs_cache",
        annotation=LISTED,
    )  # fmt: skip
    extra_args: tuple[str, ...] = strings(
        (), "arguments added to the daemon's own", check=ARGUMENTS, toml="virtio_fs_extra_args"
    )


class Factory(Group):
    """Templates: booted machines that new ones start as copies of."""

    SECTION = "factory"

    enable_template: bool = boolean(True, "start virtual machines as copies of a template")
    image_templates: int = integer(
        8,
        "how many images may have a template of their own, in which their files are mounted "
        "already; 0: none",
        check=between(0, 1000),
    )
    vm_cache_number: int = integer(
        2,
        "how many virtual machines kata factory serve keeps ready for engines",
        check=between(1, 1000),
    )
    template_path: str = text(
        "", "where templates are kept; empty: templates in data_root", check=ABSOLUTE_OR_EMPTY
    )


class Agent(Group):
    """The program inside the guest, and how long it may take."""

    SECTION = "agent.kata"

    dial_timeout: int = integer(
        45, "how long the first answer may take after a start, seconds", check=between(1, 3600)
    )
    request_timeout: int = integer(
        60, "how long any other answer may take, seconds", check=between(1, 86400)
    )
    create_container_timeout: int = integer(
        60, "how long making a container may take, seconds", check=between(1, 86400),
        annotation=ALWAYS,
    )  # fmt: skip
    kernel_modules: tuple[str, ...] = strings(
        (), "kernel modules loaded in the guest before its first container", check=NAMES,
        annotation=ALWAYS,
    )  # fmt: skip


class Runtime(Group):
    """Where things are kept, and how the runtime itself behaves."""

    SECTION = "runtime"

    state_root: str = text("/run/kata", "state of what runs; gone after a reboot", check=ABSOLUTE)
    data_root: str = text(
        "/var/lib/kata", "images, templates, guest images and caches", check=ABSOLUTE
    )
    guest_image: str = text(
        "",
        "directory of the guest image; empty: the one in data_root (guest/default), else the "
        "one installed",
        check=ABSOLUTE_OR_EMPTY,
    )
    internetworking_model: str = text(
        "tcfilter",
        "how a virtual machine is connected to the links of its network namespace; tcfilter: "
        "a tap for each, frames redirected both ways; none: not at all",
        check=one_of("tcfilter", "none"), annotation=ALWAYS,
    )  # fmt: skip
    stop_timeout: int = integer(
        10, "how long a container may take to end before it is killed, seconds",
        check=between(0, 86400),
    )  # fmt: skip


@record
class Config:
    """All settings; ``sources`` are the files they were read from, none for the defaults."""

    hypervisor: Hypervisor
    shared_fs: SharedFs
    factory: Factory
    agent: Agent
    runtime: Runtime
    sources: tuple[str, ...] = ()


GROUPS: dict[str, type[Group]] = {
    "hypervisor": Hypervisor,
    "shared_fs": SharedFs,
    "factory": Factory,
    "agent": Agent,
    "runtime": Runtime,
}


def rows() -> list[tuple[str, Setting]]:
    """Every setting with the attribute of its group, in the order of the file."""
    return [(group, s) for group, cls in GROUPS.items() for s in cls.SETTINGS.values()]


def build(values: dict[str, dict[str, object]], sources: tuple[str, ...] = ()) -> Config:
    """The record of valid ``values``, by group and attribute; the rest are defaults."""
    made = {group: cls(**values.get(group, {})) for group, cls in GROUPS.items()}
    runtime, factory = made["runtime"], made["factory"]
    if not factory.__dict__["template_path"]:
        factory.__dict__["template_path"] = runtime.__dict__["data_root"] + "/templates"
    return Config(**made, sources=sources)  # type: ignore[arg-type]


def fingerprint() -> str:
    """Changes whenever a setting, its default or its rule does; cached values depend on it."""
    from zlib import crc32

    parts = [
        f"{g}.{s.name}:{s.section}.{s.toml}:{s.kind}:{s.default}:{s.check and s.check.rule}"
        for g, s in rows()
    ]
    return f"{crc32(';'.join(parts).encode()):08x}"
