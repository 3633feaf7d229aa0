"""From the options of ``kata run`` to what the supervisor is asked; nothing is run here."""

from __future__ import annotations

import os

from kata.cli.parse import UsageError
from kata.errors import InvalidInput, KataError, NotFound
from kata.oci import options as values
from kata.oci.defaults import (
    ContainerRequest,
    ProcessRequest,
    Resources,
    image_environment,
    tweaked_capabilities,
)
from kata.oci.signals import number
from kata.oci.users import resolve
from kata.runtime.request import RunRequest
from kata.runtime.store import new_id
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.config.settings import Config
    from kata.image.store import Image, Store
    from kata.oci.options import Security, Volume

_MIB = 1 << 20
_HOST_NAME_MAX = 64  # of the kernel, uname(2)
_HOST_NAME_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
)


@record
class Source:
    """Where the root file system and the defaults of the process come from."""

    name: str
    layers: tuple[str, ...] = ()
    rootfs: str = ""
    passwd: str = ""
    group: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    user: str = ""
    cwd: str = "/"
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


def build(options: Options, config: Config) -> RunRequest:
    """The request. Raises ``InvalidInput``, ``NotFound`` or ``ImageError``; nothing was started."""
    command = _words(options)
    tweaked_capabilities(tuple(options.cap_add), tuple(options.cap_drop))  # refuses unknown ones
    source = _rootfs(options.rootfs) if options.rootfs else _image(options, config)
    container_id = new_id()
    hostname = _hostname(options.hostname) if options.hostname else container_id[:12]
    security = values.security(tuple(options.security_opt), os.getcwd())
    resources = _resources(options)
    volumes = tuple(values.volume(text, os.getcwd()) for text in options.volume)
    container = ContainerRequest(
        process=_process(options, source, command, security),
        hostname=hostname,
        readonly=options.read_only,
        cap_add=tuple(options.cap_add),
        cap_drop=tuple(options.cap_drop),
        volumes=volumes,
        tmpfs=_tmpfs(options, source, volumes),
        sysctls=tuple(values.sysctl(text) for text in options.sysctl),
        resources=resources,
        shm_size=values.size(options.shm_size) if options.shm_size else 64 * _MIB,
    )
    settings = config.hypervisor
    whole_cpus = -(-resources.nano_cpus // 1_000_000_000)
    return RunRequest(
        id=container_id,
        name=container_id[:12],
        image=source.name,
        container=container,
        layers=source.layers,
        rootfs=source.rootfs,
        passwd=source.passwd,
        group=source.group,
        seccomp=security.seccomp,
        init=options.init,
        files=_files(options, hostname),
        domainname=options.domainname or "",
        stop_signal=number(options.stop_signal or source.stop_signal or "TERM"),
        machine_vcpus=whole_cpus or settings.default_vcpus,
        machine_memory=-(-resources.memory // _MIB) or settings.default_memory,
        memory_limited=bool(resources.memory),
        template=not options.no_template,
        stdin=options.interactive and not options.detach,
        logged=options.detach or not options.rm,
    )


def _hostname(name: str) -> str:
    """A host name the kernel and /etc/hosts can hold."""
    if len(name) > _HOST_NAME_MAX or set(name) - _HOST_NAME_CHARACTERS:
        raise InvalidInput(
            f'invalid host name "{name}"',
            why=f"letters, digits, dots, dashes and underscores, {_HOST_NAME_MAX} at most",
        )
    return name


def _words(options: Options) -> tuple[str, ...]:
    """The words of the command: with ``--rootfs`` there is no image before them."""
    if options.rootfs:
        return (options.image, *options.command) if options.image else tuple(options.command)
    if not options.image:
        raise UsageError(
            "kata run needs an IMAGE or --rootfs DIR", hint="kata run --help shows an example",
            exit_code=125,
        )  # fmt: skip
    return tuple(options.command)


def _rootfs(path: str) -> Source:
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        why = "it is not a directory" if os.path.exists(path) else "it does not exist"
        raise NotFound(f'cannot use rootfs "{path}"', why=why)
    return Source(
        name=path, rootfs=path,
        passwd=_text_in(path, "/etc/passwd"), group=_text_in(path, "/etc/group"),
        command=("sh",),
    )  # fmt: skip


def _text_in(root: str, path: str) -> str:
    """A file of a root file system that is not trusted: no link leads out, no device opens."""
    from stat import S_ISREG

    from kata.linux.syscalls import RESOLVE_IN_ROOT, openat2

    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with open(openat2(directory, path, flags, 0, RESOLVE_IN_ROOT), "rb") as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            return file.read(_MIB).decode(errors="surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(directory)


def _image(options: Options, config: Config) -> Source:
    from kata.image.store import Store as Images

    store = Images(config.runtime.data_root)
    image = None if options.pull == "always" else _stored(store, options.image)
    if image is None:
        if options.pull == "never":
            raise NotFound(
                f'no such image: "{options.image}"', hint=f"kata image pull {options.image}"
            )
        from kata.cli.image import fetch
        from kata.runtime import guest_image

        guest_image.find(config.runtime.guest_image, config.runtime.data_root)  # or why not
        image = fetch(options.image, store)
    return Source(
        name=image.name or options.image, layers=image.layers,
        passwd=image.passwd, group=image.group, entrypoint=image.entrypoint, command=image.cmd,
        environment=image.env, user=image.user,
        cwd=image.working_dir or "/", volumes=image.volumes, stop_signal=image.stop_signal,
    )  # fmt: skip


def _stored(store: Store, text: str) -> Image | None:
    try:
        return store.find(text)
    except NotFound as error:
        if "ambiguous" in error.what:
            raise
        return None


def _process(
    options: Options, source: Source, command: tuple[str, ...], security: Security
) -> ProcessRequest:
    environment: list[str] = []
    for path in options.env_file:
        environment += values.env_file(read_file(path), path, os.environ)
    environment += values.environment(tuple(options.env), os.environ)
    wanted = options.user if options.user is not None else source.user
    return ProcessRequest(
        args=_arguments(options, source, command),
        env=image_environment(source.environment, tuple(environment)),
        cwd=workdir(options) or source.cwd,
        user=resolve(wanted, source.passwd, source.group, extra=tuple(options.group_add)),
        terminal=options.tty,
        console_size=terminal_size() if options.tty else (0, 0),
        rlimits=tuple(values.ulimit(text) for text in options.ulimit),
        no_new_privileges=security.no_new_privileges,
    )


def _arguments(options: Options, source: Source, command: tuple[str, ...]) -> tuple[str, ...]:
    """Docker's rule: a new entrypoint drops the image's command, a command replaces it."""
    entrypoint: tuple[str, ...] = ()
    if options.entrypoint is not None:
        entrypoint = (options.entrypoint,) if options.entrypoint else ()
    else:
        entrypoint, command = source.entrypoint, command or source.command
    if not entrypoint + command:
        raise InvalidInput(
            "no command to run", why=f'image "{source.name}" names none',
            hint="add one: kata run IMAGE COMMAND",
        )  # fmt: skip
    return entrypoint + command


def _resources(options: Options) -> Resources:
    memory = values.size(options.memory) if options.memory else 0
    if options.memory and memory < 6 * _MIB:
        raise InvalidInput(
            f'--memory "{options.memory}" is too small', why="6 MiB are the least a container gets"
        )
    pids = 0
    if options.pids_limit:
        try:
            pids = max(int(options.pids_limit), 0)
        except ValueError:
            raise InvalidInput(f'invalid --pids-limit "{options.pids_limit}"') from None
    nano_cpus = values.cpus(options.cpus) if options.cpus else 0
    return Resources(memory=memory, nano_cpus=nano_cpus, pids=pids)


def _tmpfs(
    options: Options, source: Source, volumes: tuple[Volume, ...]
) -> tuple[values.Tmpfs, ...]:
    """What was asked; the image's own volumes are empty places in memory, unless given."""
    asked = [values.tmpfs(text) for text in options.tmpfs]
    taken = {t.destination for t in asked} | {v.destination for v in volumes}
    return (*asked, *(values.Tmpfs(v, ("mode=755",)) for v in source.volumes if v not in taken))


def _files(options: Options, hostname: str) -> tuple[tuple[str, bytes], ...]:
    full = f"{hostname}.{options.domainname} {hostname}" if options.domainname else hostname
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for text in options.add_host:
        name, _, address = text.partition(":")
        if not name or not address:
            raise InvalidInput(f'invalid --add-host "{text}"', why="must be HOST:IP")
        hosts.append(f"{address}\t{name}")
    hosts.append(f"127.0.1.1\t{full}")
    return (
        ("/etc/hostname", f"{hostname}\n".encode()),
        ("/etc/hosts", ("\n".join(hosts) + "\n").encode()),
        ("/etc/machine-id", f"{os.urandom(16).hex()}\n".encode()),
    )


def workdir(options: Options) -> str:
    """The value of ``--workdir``, empty if not given; raises ``InvalidInput``."""
    path: str = options.workdir or ""
    if path and not path.startswith("/"):
        raise InvalidInput(f'invalid --workdir "{path}"', why="must be an absolute path")
    return path


def without_config(error: KataError, path: str) -> KataError:
    """The guest's error in the words of the command line, where nobody wrote a config.json."""
    if not error.what.startswith("chdir to cwd"):
        return error
    what = f'--workdir "{path}"' if path else "the working directory of the image"
    return type(error)(what, why=error.what.rpartition("failed: ")[2])


def read_file(path: str) -> bytes:
    """A small file that an option names; raises ``InvalidInput``."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise InvalidInput(f'cannot read "{path}"', why=error.strerror or str(error)) from None


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the caller's terminal, zeros if there is none."""
    from kata.linux.terminal import is_terminal, size

    return size(0) if is_terminal(0) else size(1) if is_terminal(1) else (0, 0)
