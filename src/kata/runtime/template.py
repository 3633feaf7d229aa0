"""Templates: booted, quiet virtual machines frozen to files, of which sandboxes are copies.

The one rule: a template is complete and unchanged, or it is not used: its directory appears by one
rename, its manifest names what it was made of and the identity of its files.

    templates = Templates(config.factory.template_path, program=qemu, uid=uid)
    template = templates.find(machine) or templates.create(machine, say=print_line)
    frozen = template.open()                   # or open(private_copy=True), for virtio-fs
    vm = start(machine, Bindings(
        memory=frozen.memory, memory_source=frozen.source, state=frozen.state, ...), options)
    vm.wait_ready(timeout)
    frozen.close()
"""

from __future__ import annotations

import os
import time
from zlib import crc32

from kata.errors import HostError
from kata.hypervisors.qemu.arguments import Wiring, arguments
from kata.machine.capabilities import require
from kata.machine.description import guest_visible
from kata.wire import quickjson
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from kata.machine.description import Machine
    from kata.wire.agent_api import PrepareRequest

FORMAT = 2
MANIFEST, MEMORY, STATE = "manifest.json", "memory", "state"
_NEW, _LOCK = ".new-", ".lock-"
_KEY_DIGITS = 16
_MOST_STATE = 64 << 20  # bytes; what we make has less than one million


@record
class Frozen:
    """Open descriptors of a template, for one start.

    ``memory`` is what the machine gets; if ``source`` is not -1, ``memory`` is an empty file of its
    own that is filled from ``source`` while the VMM starts.
    """

    memory: int
    source: int
    state: int

    def close(self) -> None:
        """Close them; what is mapped stays mapped."""
        for fd in (self.memory, self.source, self.state):
            if fd >= 0:
                os.close(fd)


@record
class Preparation:
    """What a template for one image is made of: another template, disks, and the root to make."""

    base: Template
    disks: tuple[str, ...]
    root: PrepareRequest


@record
class Template:
    """One verified template."""

    key: str
    directory: str

    def open(self, *, private_copy: bool = False, sealed: bool = False) -> Frozen:
        """Descriptors to start a clone with; ``private_copy``: memory that others may map too.

        ``sealed`` as in ``linux/sealed``: for a VMM that could open them again for writing.
        Raises ``HostError``.
        """
        opened: list[int] = []
        try:
            for name in (STATE, MEMORY):
                opened.append(_open(f"{self.directory}/{name}", sealed=sealed))  # noqa: PERF401
            if private_copy:
                opened.append(os.memfd_create("memory", os.MFD_CLOEXEC))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise HostError(
                f"cannot open the template {self.key}", why=str(error), hint="kata factory destroy"
            ) from None
        state, memory, *own = opened
        return Frozen(own[0], memory, state) if own else Frozen(memory, -1, state)


def _open(path: str, *, sealed: bool) -> int:
    if sealed:
        from kata.linux.sealed import open_read_only

        return open_read_only(path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Templates:
    """The templates under one directory, for one QEMU.

    ``uid`` is the user that QEMU runs as while a template is made; ``modules`` are kernel
    modules loaded before it is frozen.
    """

    def __init__(
        self, root: str, *, program: str, uid: int, modules: Collection[str] = ()
    ) -> None:
        self.root = root
        self._program = program
        self._uid = uid
        self._modules = tuple(modules)

    def key(self, machine: Machine) -> str:
        """The name of the template for such machines: a hash of all it depends on."""
        from kata.wire.digest import sha256

        facts = quickjson.dumps(self._facts(machine)).encode()
        return str(sha256(facts).hexdigest()[:_KEY_DIGITS])

    def _facts(self, machine: Machine) -> dict[str, object]:
        machine = replace(machine, shared_memory=False)
        words = arguments(machine, Wiring(memory_file=True, restore=True))
        facts: dict[str, object] = {
            "format": FORMAT,
            "machine": guest_visible(machine),
            "arguments": words,
            "program": _identity(self._program),
            "modules": self._modules,
        }
        if machine.accelerator == "kvm":
            facts["host"] = _processor()
        return facts

    def find(self, machine: Machine) -> Template | None:
        """The template for such machines if there is a sound one, else None. Takes 1 ms."""
        key = self.key(machine)
        directory = f"{self.root}/{key}"
        return None if _flaw(directory, key) else Template(key, directory)

    def create(
        self, machine: Machine, *, say: Callable[[str], None], of: Preparation | None = None
    ) -> Template:
        """Make it, or wait for another process that is making it. Forks; takes seconds.

        With ``of`` it is not booted but taken further from another template.

        Raises ``HypervisorError``, ``AgentError``, ``HostError``, ``Unsupported``.
        """
        require(machine, template=True)
        key = self.key(machine)
        directory = f"{self.root}/{key}"
        lock = self._lock(key, say)
        try:
            flaw = _flaw(directory, key)
            if not flaw:
                return Template(key, directory)
            if os.path.lexists(directory):
                say(f"the template {key} is damaged ({flaw}), making it again")
                _remove(directory)
            self._make(machine, key, of, say)
        finally:
            os.close(lock)
        return Template(key, directory)

    def _lock(self, key: str, say: Callable[[str], None]) -> int:
        import fcntl

        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            path = f"{self.root}/{_LOCK}{key}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(
                f'cannot write to the template directory "{self.root}"',
                why=error.strerror or str(error),
                hint="choose another with template_path, or use --no-template",
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that makes the same template")
            fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _make(
        self, machine: Machine, key: str, of: Preparation | None, say: Callable[[str], None]
    ) -> None:
        from kata.runtime.freeze import Order, make

        kind = "a template for this image" if of else "a template"
        say(
            f"making {kind} (once): {machine.memory_mib} MiB, {machine.vcpus} vCPU, "
            f"{machine.machine_type}, {machine.accelerator}"
        )
        began = time.monotonic()
        self._sweep(key)
        workdir = f"{self.root}/{_NEW}{key}"
        try:
            os.mkdir(workdir, 0o700)
            order = Order(machine, self._program, self._uid, self._modules, workdir)
            if of is not None:
                order = replace(order, base=of.base.directory, disks=of.disks, root=of.root)
            make(order)
            facts = self._facts(machine)
            manifest = {**facts, "key": key, "made_ns": time.time_ns(), **_files(workdir)}
            manifest["layers"] = of.disks if of else ()
            manifest["kernel"], manifest["initrd"] = machine.kernel, machine.initrd
            _write(f"{workdir}/{MANIFEST}", quickjson.dumps(manifest).encode())
            os.rename(workdir, f"{self.root}/{key}")
        except OSError as error:
            raise HostError(
                "cannot make the template", why=error.strerror or str(error),
                hint=f'free some space in "{self.root}", or use --no-template',
            ) from None  # fmt: skip
        finally:
            self._sweep(key)
        say(f"template {key} made in {time.monotonic() - began:.1f} s")

    def _sweep(self, key: str) -> None:
        """Remove a half-made template; its lock must be held."""
        _remove(f"{self.root}/{_NEW}{key}")

    def status(self) -> list[dict[str, object]]:
        """What there is: key, path, machine, sizes in bytes, made when, sound or not."""
        return [self._describe(key) for key in self._keys()] + [
            {
                "key": f"{_NEW}{key}", "path": f"{self.root}/{_NEW}{key}", "sound": False,
                "flaw": "being made" if self._is_locked(key) else "half made", "current": False,
            }
            for key in sorted(self._names(_NEW))
        ]  # fmt: skip

    def _is_locked(self, key: str) -> bool:
        import fcntl

        try:
            with open(f"{self.root}/{_LOCK}{key}", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _keys(self) -> list[str]:
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(n for n in names if not n.startswith(".") and len(n) == _KEY_DIGITS)

    def _describe(self, key: str) -> dict[str, object]:
        directory = f"{self.root}/{key}"
        flaw = _flaw(directory, key)
        found: dict[str, object] = {
            "key": key, "path": directory, "sound": not flaw, "flaw": flaw,
            "current": not self._stale(key),
        }  # fmt: skip
        try:
            manifest = _manifest(directory)
            machine = manifest["machine"]
            found |= {
                name: machine[name]
                for name in (
                    "machine_type", "accelerator", "memory_mib", "vcpus", "block_slots", "prepared",
                )
            }
            found["made_ns"] = manifest["made_ns"]
            found["state_bytes"] = os.stat(f"{directory}/{STATE}").st_size
            found["memory_bytes"] = os.stat(f"{directory}/{MEMORY}").st_blocks * 512
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return found

    def _stale(self, key: str) -> str:
        """Why nobody will ask for this template any more; "" if somebody may."""
        try:
            manifest = _manifest(f"{self.root}/{key}")
            program = manifest["program"]
            if program != _identity(program["path"]):
                return "QEMU has changed"
            for name in ("kernel", "initrd"):
                if not os.path.exists(manifest[name]):
                    return "its guest image is gone"
            if not all(os.path.exists(path) for path in manifest["layers"]):
                return "its image is gone"
        except (OSError, ValueError, KeyError, TypeError):
            return "its manifest cannot be read"
        return "" if manifest.get("format") == FORMAT else "it was made by another version"

    def collect(self) -> list[str]:
        """Remove what no longer fits (other image, QEMU or version) and half-made ones: the names.

        What is being made just now is left alone. Raises ``HostError`` if something cannot be
        removed, once the others are.
        """
        return self._discard(lambda key: bool(self._stale(key) or _flaw(f"{self.root}/{key}", key)))

    def keep(self, most: int) -> list[str]:
        """Remove the oldest templates for images beyond ``most``: the keys."""
        made = sorted(
            (int(str(found.get("made_ns", 0))), str(found["key"]))
            for found in self.status()
            if found.get("prepared")
        )
        surplus = {key for _, key in made[: max(len(made) - most, 0)]}
        return self._discard(lambda key: key in surplus) if surplus else []

    def destroy(self) -> list[str]:
        """Remove all: the names. Virtual machines that run are not touched: they hold the files."""
        return self._discard(lambda _key: True)

    def _discard(self, unwanted: Callable[[str], bool]) -> list[str]:
        import fcntl

        gone: list[str] = []
        failures = []
        keys = set(self._keys()) | set(self._names(_NEW))
        for key in sorted(keys | set(self._names(_LOCK))):
            lock = os.open(f"{self.root}/{_LOCK}{key}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone += self._discard_one(key, unwanted)
            except BlockingIOError:
                pass  # it is being made
            except HostError as error:
                failures.append(error)
            finally:
                os.close(lock)
        if failures:
            raise failures[0]
        return gone

    def _discard_one(self, key: str, unwanted: Callable[[str], bool]) -> list[str]:
        """Remove what there is of a key, half-made or unwanted; its lock must be held."""
        gone = [f"{_NEW}{key}"] if key in self._names(_NEW) else []
        self._sweep(key)
        kept = key in self._keys()
        if kept and unwanted(key):
            _remove(f"{self.root}/{key}")
            gone.append(key)
            kept = False
        if not kept:
            os.unlink(f"{self.root}/{_LOCK}{key}")
        return gone

    def _names(self, prefix: str) -> list[str]:
        try:
            return [n.removeprefix(prefix) for n in os.listdir(self.root) if n.startswith(prefix)]
        except FileNotFoundError:
            return []


def _identity(path: str) -> dict[str, object]:
    """What changes when a program is replaced."""
    try:
        real = os.path.realpath(path)
        found = os.stat(real)
    except OSError:
        return {"path": path}
    return {"path": real, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _processor() -> str:
    """The host's processor as a guest under kvm sees it."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        first = file.read().partition("\n\n")[0]
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    lines = (line.partition(":") for line in first.splitlines())
    return ";".join(value.strip() for name, _, value in lines if name.strip() in wanted)


def _files(directory: str) -> dict[str, object]:
    """The identity of a template's files: of the state its content, of the memory its inode."""
    with open(f"{directory}/{STATE}", "rb") as file:
        state = file.read(_MOST_STATE)
    memory = os.stat(f"{directory}/{MEMORY}")
    return {
        "state": {"size": len(state), "crc32": crc32(state)},
        "memory": {
            "size": memory.st_size, "mtime_ns": memory.st_mtime_ns, "inode": memory.st_ino,
        },
    }  # fmt: skip


def _manifest(directory: str) -> dict[str, Any]:
    with open(f"{directory}/{MANIFEST}", "rb") as file:
        manifest = quickjson.loads(file.read(1 << 20))
    if not isinstance(manifest, dict):
        raise ValueError("no object")  # noqa: TRY004 (of JSON, not of a caller)
    return manifest


def _flaw(directory: str, key: str) -> str:
    """What is wrong with a template; "" if it is sound."""
    try:
        manifest = _manifest(directory)
    except FileNotFoundError:
        return "there is none"
    except (OSError, ValueError) as error:
        return f"its manifest cannot be read: {error}"
    try:
        now = _files(directory)
    except OSError as error:
        return f"a file cannot be read: {error.strerror}"
    if manifest.get("key") != key:
        return "its manifest is of another"
    for name in (STATE, MEMORY):
        if manifest.get(name) != now[name]:
            return f'the file "{name}" has changed'
    return ""


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(directory: str) -> None:
    """Remove a template, whatever is in its place."""
    try:
        if os.path.isdir(directory) and not os.path.islink(directory):
            from shutil import rmtree

            rmtree(directory)
        else:
            os.unlink(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(
            f'cannot remove "{directory}"', why=error.strerror or str(error)
        ) from None
