"""How a template is made: boot a guest in a process of its own, quieten it, freeze it to files.

The one rule: the process that asks stays single threaded and sees either two complete files or an
error; whatever happens, no process is left.
"""

from __future__ import annotations

import _signal
import os
import time

from kata.errors import AgentError, HypervisorError, KataError
from kata.wire.record import record, replace
from kata.wire.ttrpc import Status, error_of, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from kata.hypervisors.qemu.driver import QemuVm
    from kata.machine.description import Machine
    from kata.runtime.rpc import Client
    from kata.wire.agent_api import ConfigureRequest, PrepareRequest

_BOOT_TIMEOUT_S = 120.0  # of the slowest: an emulated guest on a busy host
_CALL_TIMEOUT_S = 120.0
# What a clone does first is done before: pages shared with the parked child are copied here, not
# in every clone, and the interpreter has settled on its specialised instructions (after 8 rounds).
_REHEARSALS = 16


@record
class Order:
    """What to freeze, with which QEMU as which user, and the directory for the files.

    With ``base``, the directory of another template, a copy of that one is taken further:
    ``disks`` are attached, and its parked container makes the ``root``.
    """

    machine: Machine
    program: str
    uid: int
    modules: tuple[str, ...]
    directory: str
    boot_timeout: float = _BOOT_TIMEOUT_S
    base: str = ""
    disks: tuple[str, ...] = ()
    root: PrepareRequest | None = None


def make(order: Order) -> None:
    """Make ``memory`` and ``state`` in the directory. Raises what went wrong."""
    apart(lambda: _freeze(order))


_ENDING = (_signal.SIGTERM, _signal.SIGHUP)


def apart(work: Callable[[], None]) -> None:
    """Do something in a forked process, which ends with this one; raises its error here."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)  # until somebody minds them
    pid = os.fork()
    if pid == 0:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.close(ours)
        _child(work, theirs, parent)
    os.close(theirs)
    kept = _end_on_signals()
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        answer = b""
        while data := os.read(ours, 65536):
            answer += data
    except BaseException:
        os.kill(pid, 9)
        raise
    finally:
        os.close(ours)
        os.waitpid(pid, 0)
        for number, handler in kept.items():
            _signal.signal(number, handler)
    if not answer:
        raise HypervisorError("the process that starts a guest was killed")
    if answer != b"done":
        raise error_of(Status.decode(answer))


def _end_on_signals() -> dict[int, Any]:
    """Make TERM and HUP an exception, so that what is half made is removed; the former handlers."""
    kept = {}
    try:
        for number in _ENDING:
            if _signal.getsignal(number) is _signal.SIG_DFL:
                kept[int(number)] = _signal.signal(number, _ended)
    except ValueError:
        pass  # in another thread than the main one, which then has handlers of its own
    return kept


def _ended(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _child(work: Callable[[], None], report: int, parent: int) -> NoReturn:
    from kata.linux import syscalls

    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        if os.getppid() != parent:
            os._exit(1)
        work()
        os.write(report, b"done")
    except KataError as error:
        os.write(report, status_of(error).encode()[:60000])
    except BaseException as error:
        os.write(report, status_of(KataError(f"internal error: {error!r}")).encode())
    finally:
        os._exit(0)


def try_boot(machine: Machine, program: str, uid: int, seconds: float) -> None:
    """Boot a guest to its agent's first answer, and end it. Raises why it did not come so far."""
    apart(lambda: _try_boot(Order(machine, program, uid, (), "", seconds)))


def _try_boot(order: Order) -> None:
    vm = boot(order)
    try:
        configured(vm, order.boot_timeout)
    finally:
        vm.stop()


def _freeze(order: Order) -> None:
    from kata.linux import sparse

    memory = os.open(
        f"{order.directory}/memory", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400
    )
    os.ftruncate(memory, order.machine.memory_mib << 20)
    state = os.open(
        f"{order.directory}/state", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400
    )
    vm = _copy(order, memory) if order.base else boot(order, memory)
    try:
        _quieten(vm, order)
        vm.save(state)
    finally:
        vm.stop()
    sparse.punch_zeroes(memory)
    os.fsync(memory)
    os.fsync(state)


def boot(order: Order, memory: int = -1) -> QemuVm:
    """A guest that has begun to boot, cold, with ``memory`` for its memory."""
    from kata.hypervisors.interface import Bindings, Options
    from kata.hypervisors.qemu import driver
    from kata.network.idle import IdleTaps

    machine = replace(order.machine, shared_memory=memory >= 0)
    options = Options(order.program, order.uid, scratch=order.directory)
    with IdleTaps(machine.nic_slots) as nics:
        vm = driver.start(machine, Bindings(memory=memory, nics=nics), options)
        vm.wait_ready(order.boot_timeout)
    return vm


def _copy(order: Order, memory: int) -> QemuVm:
    """A running copy of the base, its memory in the new file, with the disks attached."""
    from kata.hypervisors.interface import Bindings, Options
    from kata.hypervisors.qemu import driver
    from kata.linux import sparse
    from kata.network.idle import IdleTaps

    opened = [
        os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for path in (f"{order.base}/memory", f"{order.base}/state", *order.disks)
    ]
    try:
        source, state, *disks = opened
        sparse.copy(source, memory)
        options = Options(order.program, order.uid, scratch=order.directory)
        with IdleTaps(order.machine.nic_slots) as nics:
            bindings = Bindings(
                memory=memory, state=state, nics=nics,
                disks=tuple((slot, fd, True) for slot, fd in enumerate(disks)),
            )  # fmt: skip
            vm = driver.start(replace(order.machine, shared_memory=True), bindings, options)
            vm.wait_ready(order.boot_timeout)
    finally:
        for fd in opened:
            os.close(fd)
    return vm


def _quieten(vm: QemuVm, order: Order) -> None:
    from kata.wire.agent_api import PrepareRequest

    modules = [*order.modules, *(["9p"] if order.machine.share_slot else [])]
    request = order.root or PrepareRequest(modules=modules)
    client = configured(vm, order.boot_timeout)
    try:
        client.call("Prepare", request, _CALL_TIMEOUT_S)
        for _ in range(_REHEARSALS):
            client.call("Configure", _identity(), _CALL_TIMEOUT_S)
    except AgentError as error:
        raise explained(vm, error) from None
    # its answer was sent before it went to sleep: let it, so that clones find it waiting
    time.sleep(0.3)


def configured(vm: QemuVm, timeout: float) -> Client:
    """A client of the agent, after its first answer. Raises with the guest's console."""
    from kata.runtime.rpc import Client
    from kata.wire.agent_api import ConfigureResponse, api_hash

    client = Client(vm.agent)
    try:
        answer = client.call("Configure", _identity(), timeout)
    except AgentError as error:
        raise explained(vm, error) from None
    assert isinstance(answer, ConfigureResponse)
    if answer.api_hash != api_hash():
        raise AgentError(
            "the guest image does not fit this version",
            why=f'its agent speaks "{answer.api_hash[:40]}", we speak "{api_hash()}"',
            hint="kata guest build",
        )
    return client


def _identity() -> ConfigureRequest:
    from kata.wire.agent_api import ConfigureRequest, api_hash

    return ConfigureRequest(
        api_hash=api_hash(), realtime_ns=time.time_ns(), entropy=os.urandom(64),
        hostname="template", machine_id=os.urandom(16).hex(), sandbox_id="template",
    )  # fmt: skip


def explained(vm: QemuVm, error: KataError) -> KataError:
    """An agent's silence, with what the VMM and the console say about it."""
    end = time.monotonic() + 1.0
    while not vm.death() and time.monotonic() < end:
        time.sleep(0.01)
    return HypervisorError(
        "the guest did not boot to its agent", why=vm.death() or str(error),
        console=vm.console_tail()[-4000:],
    )  # fmt: skip
