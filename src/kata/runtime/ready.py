"""A member of the pool: a supervisor whose machine is ready before anybody asks for it.

Forked by the keeper, it restores a machine, has it run a container that is thrown away
(``rehearsal``: under emulation the guest's code is translated then, which costs most of a start),
lets it stand still, and waits. The rule: it serves one sandbox, once; who takes it gives it a name.
"""

from __future__ import annotations

import os
import select
import sys
from shutil import rmtree

from kata.errors import HypervisorError, KataError
from kata.linux.title import set_title
from kata.network.sample import SampleNetwork
from kata.runtime.birth import detach
from kata.runtime.lifetime import note
from kata.runtime.pool import TAKEN, receive_order
from kata.runtime.rehearsal import rehearse
from kata.runtime.sandbox import Sandbox
from kata.runtime.store import new_id
from kata.runtime.timing import Marks
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from kata.config.settings import Config
    from kata.runtime.machines import Launch
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.supervisor import Supervisor
    from kata.runtime.workload import Workload

    Adopter = Callable[[dict[str, Any], list[int], Config], "Role"]

READY, FAILED = b"+", b"-"
TITLE = "kata-ready"
_SCRATCH = "cache/ready-"  # in the state root: a directory while a member gets ready


@record
class Role:
    """What a ready sandbox becomes: ``become`` makes its supervisor, ``channels`` are who asks."""

    first: Workload
    store: Store
    state: ContainerState
    become: Callable[..., Supervisor]
    channels: Sequence[socket] = ()
    streams: Sequence[tuple[int, int]] = ()  # of a first container that starts by itself
    log: str = ""
    title: Sequence[str] = ()


class Nobody:
    """The workload of a sandbox that is nobody's: no files, no group, a network of its own."""

    id = guest_name = hostname = "ready"
    layers: tuple[str, ...] = ()
    first_slot = 0
    deferred = engine = True
    systemd_slice = resolv_conf = ""
    group = ("", "")
    resources: Mapping[str, Any] = {}

    def __init__(self, network: int) -> None:
        self.network = network  # a descriptor


def serve(
    channel: socket, config: Config, launch: Launch, adopters: Mapping[str, Adopter], root: str
) -> NoReturn:
    """Be a member to the end; in a process that was just forked and has a single thread.

    ``channel`` leads to the keeper, and then to who takes it; ``root`` is the rehearsal's.
    """
    code = 0
    try:
        errors = os.dup(2)
        detach({}, {channel.fileno(), errors}, "/dev/null")
        os.dup2(errors, 2, inheritable=False)
        os.close(errors)
        set_title([TITLE])
        code = _serve(channel, config, launch, adopters, root)
    except BaseException:
        from traceback import print_exc

        print_exc()
        code = 1
    finally:
        os._exit(code)


def sweep(state_root: str) -> None:
    """Remove what killed members left; for the keeper, while it has none."""
    directory, _, prefix = _SCRATCH.rpartition("/")
    for name in os.listdir(f"{state_root}/{directory}"):
        if name.startswith(prefix):
            rmtree(f"{state_root}/{directory}/{name}", ignore_errors=True)


def _serve(
    channel: socket, config: Config, launch: Launch, adopters: Mapping[str, Adopter], root: str
) -> int:
    scratch = f"{config.runtime.state_root}/{_SCRATCH}{new_id()[:12]}"
    os.makedirs(scratch, mode=0o700)
    with SampleNetwork() as network:
        sandbox = Sandbox(Nobody(network), launch, config, Marks(), scratch)  # type: ignore[arg-type]
        try:
            sandbox.launch()
            os.mkdir(f"{scratch}/tmp", 0o700)
            rehearse(sandbox, root, f"{scratch}/tmp", config.runtime.data_root)
            sandbox.park()
        except KataError as error:
            channel.sendall(FAILED + str(sandbox.explain(error)).encode()[:4096])
            sandbox.stop()
            return 1
        finally:
            rmtree(scratch, ignore_errors=True)
    try:
        channel.sendall(READY)
        _until_asked(channel, sandbox)
        order = receive_order(channel)
        if order is None:
            return 0
        sandbox.wake()
        role = _take_on(*order, config, adopters)
        if role.first.layers and len(role.first.layers) > sandbox.last_slot:
            raise HypervisorError("this machine has no wired disks left for the image")
        channel.sendall(TAKEN)
        channel.close()
        _supervise(sandbox, role)
    except HypervisorError as error:
        note(f"kata: {error}")
        return 1
    finally:
        sandbox.stop()
    return 0


def _until_asked(channel: socket, sandbox: Sandbox) -> None:
    """Wait until somebody wants it, or its machine has ended."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    pidfd = os.pidfd_open(sandbox.vmm_pid)
    poll.register(pidfd, select.POLLIN)
    if pidfd in {fd for fd, _ in poll.poll()}:
        raise HypervisorError("the virtual machine ended while it was kept ready")
    os.close(pidfd)


def _take_on(
    order: dict[str, Any], fds: list[int], config: Config, adopters: Mapping[str, Adopter]
) -> Role:
    """Be what the caller wants, where the caller is."""
    _follow_caller(int(order["caller"]))
    role = adopters[order["kind"]](order, fds, config)
    if role.log:
        try:
            log = os.open(role.log, os.O_RDWR | os.O_NONBLOCK | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            log = os.open("/dev/null", os.O_RDWR)
        os.dup2(log, 2, inheritable=False)
        os.close(log)
    return role


def _follow_caller(pid: int) -> None:
    """The caller's control groups and its standing when memory runs out, as a child would have.

    A service manager that stops the keeper's service must not find the sandboxes in it.
    """
    from kata.linux import cgroups

    try:
        cgroups.follow(pid)
        with open(f"/proc/{pid}/oom_score_adj", "rb") as theirs:
            adjustment = theirs.read()
        with open("/proc/self/oom_score_adj", "wb") as ours:
            ours.write(adjustment)
    except OSError as error:
        note(f"kata: cannot go where process {pid} is: {error}")


def _supervise(sandbox: Sandbox, role: Role) -> None:
    """See the sandbox to its end, as one that was launched for its first container."""
    marks = Marks()
    marks.mark("taken")
    set_title([*role.title] or [TITLE])
    supervisor = role.become(sandbox, role.first, role.store, role.state, marks)
    failure: KataError | None = None
    try:
        sandbox.adopt(role.first, marks)
    except KataError as error:
        failure = error
    sys.stdout = None
    supervisor.run(role.channels, dict(role.streams), failure)
