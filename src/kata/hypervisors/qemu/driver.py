"""QEMU: start, restore, watch, freeze and stop a virtual machine.

The one rule: QEMU is given descriptors, never paths of ours; when the guest runs its root is empty.
"""

from __future__ import annotations

import _thread
import os
import time
from _queue import Empty

from kata.errors import HostError, HypervisorError
from kata.hypervisors.qemu import arguments as words
from kata.hypervisors.qemu.arguments import (
    Wiring,
    arguments,
    memory_device,
    more_memory,
    nic_device,
    nic_peer,
    share_device,
)
from kata.hypervisors.qemu.memory import Memory
from kata.hypervisors.qemu.qmp import check
from kata.hypervisors.qemu.watch import Pending, Watch
from kata.linux import confine, fds
from kata.linux.confine import Bind, Confinement
from kata.machine.capabilities import require
from kata.machine.description import SHARE_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812
    from collections.abc import Callable
    from typing import Any

    from kata.hypervisors.interface import Bindings, Files, Options
    from kata.linux.confine import Process
    from kata.machine.description import Machine

OLDEST_VERSION = (5, 2, 0)
_REOPENING_VERSION = (6, 1, 0)  # has blockdev-reopen
_RLIMIT_CORE, _RLIMIT_NOFILE = 4, 7
_MOST_FILES = 1024
# serving files it changes modes, and reads and sets attributes, by way of its descriptors
_PROC = ("self/fd",)
_STOP_TIMEOUT_S = 20.0
_SAVE_TIMEOUT_S = 20.0
_PLUG_TIMEOUT_S = 20.0


def start(machine: Machine, bindings: Bindings, options: Options) -> QemuVm:
    """Spawn QEMU and return at once; ``Vm.wait_ready`` does the rest.

    Raises ``HostError``, or ``Unsupported`` for what such a machine cannot have.
    """
    require(
        machine, file_share=bindings.share >= 0 or machine.share_slot,
        generation_id=machine.generation_id, network=bool(bindings.nics),
    )  # fmt: skip
    if bindings.files is not None and not machine.share_slot:
        raise HostError("this machine has no share of its own", why="none is wired into it")
    if wants_taps(machine, bindings):
        raise HostError(
            f"the template has {machine.nic_slots} network cards, {len(bindings.nics)} taps "
            "were given",
        )
    wiring = Wiring(
        memory_file=bindings.memory >= 0,
        restore=bindings.state >= 0,
        disks=tuple((slot, readonly) for slot, _, readonly in bindings.disks),
        share=bindings.share >= 0,
        sandbox=options.sandbox,
        nics=tuple((slot, vhost >= 0) for slot, _, vhost in bindings.nics),
    )
    memory = Memory(bindings, options)
    agent, console, monitor = fds.pair(), fds.pair(), fds.pair()
    errors_ours, errors_theirs = os.pipe2(os.O_CLOEXEC)
    numbers = {
        1: errors_theirs, 2: errors_theirs, words.AGENT_FD: agent[1].fileno(),
        words.CONSOLE_FD: console[1].fileno(), words.QMP_FD: monitor[1].fileno(),
    }  # fmt: skip
    optional = {words.STATE_FD: bindings.state, words.SHARE_FD: bindings.share}
    optional |= {words.FIRST_DISK_FD + slot: fd for slot, fd, _ in bindings.disks}
    for slot, tap, vhost in bindings.nics:
        optional |= {words.FIRST_TAP_FD + slot: tap, words.FIRST_VHOST_FD + slot: vhost}
    numbers |= {number: fd for number, fd in optional.items() if fd >= 0}
    root = _Root(machine, wiring, options, memory, bindings.files)
    argv = [options.program, *arguments(machine, wiring)]
    try:
        process = confine.spawn(argv, root.confinement, fds=numbers, env={})
    except BaseException:
        os.close(errors_ours)
        memory.done()
        raise
    finally:
        for theirs in (agent[1], console[1], monitor[1]):
            theirs.close()
        os.close(errors_theirs)
    watch = Watch(process, monitor[0], console[0], errors_ours)
    return QemuVm(machine, watch, agent[0], root, memory, restore=wiring.restore)


def wants_taps(machine: Machine, bindings: Bindings) -> bool:
    """Whether a card of a restored machine has no tap: its guest counts on what a tap does."""
    slots = {slot for slot, _, _ in bindings.nics}
    return bindings.state >= 0 and slots != set(range(machine.nic_slots))


def _hint(program: str, accelerator: str, why: str) -> str:
    """What to do about a QEMU that ended before it answered anything."""
    if "Cannot allocate memory" in why:
        return "the host has too little memory for it: lower --memory (-m), or end something"
    if accelerator == "kvm":
        return "kata check tries whether kvm works here"
    return f'is "{program}" a QEMU that works? kata check'


class _Root:
    """What QEMU's root holds while it starts."""

    def __init__(
        self, machine: Machine, wiring: Wiring, options: Options, memory: Memory,
        files: Files | None,
    ) -> None:  # fmt: skip
        binds, links = confine.program_root(options.program)
        if not wiring.restore:
            binds += (
                Bind(machine.kernel, words.KERNEL_PATH), Bind(machine.initrd, words.INITRD_PATH),
            )  # fmt: skip
        binds += memory.bind
        devices = ("/dev/kvm",) if machine.accelerator == "kvm" else ()
        self.program = options.program
        self.targets = [bind.target for bind in binds] + [link for link, _ in links]
        if devices:
            self.targets.append("/dev")
        self.confinement = Confinement(
            uid=options.uid, gid=options.uid, binds=binds, links=links, devices=devices,
            directories=(SHARE_PATH,) if machine.share_slot else (),
            trees=files.trees if files else (), proc=_PROC if files else (),
            capabilities=files.capabilities if files else 0,
            rlimits=(
                (_RLIMIT_CORE, 0), (_RLIMIT_NOFILE, files.open_files if files else _MOST_FILES),
            ),
            intercept_open=memory.intercepted, hostname="kata",
            cgroup=options.cgroup, cgroup_tasks=options.cgroup_tasks,
        )  # fmt: skip


class QemuVm:
    """A QEMU process and its guest; see ``hypervisors.interface.Vm``."""

    def __init__(
        self, machine: Machine, watch: Watch, agent: Socket, root: _Root, memory: Memory, *,
        restore: bool,
    ) -> None:  # fmt: skip
        self._machine = machine
        self._watch = watch
        self._agent = agent
        self._agent_taken = False
        self._root = root
        self._memory = memory
        self._restore = restore
        self._stopping = _thread.allocate_lock()
        self._ended = _thread.allocate_lock()
        self._watched = False
        self._closed = False
        self._first: list[Pending] = []
        try:
            self._begin()
        except HypervisorError:
            pass  # it has ended already: ``wait_ready`` tells why, and cleans up

    def _begin(self) -> None:
        """Everything QEMU is to do first, sent before it can read."""
        self._first.append(self._watch.start("qmp_capabilities"))
        capabilities = [
            {"capability": name, "state": True} for name in ("x-ignore-shared", "events")
        ]
        settings = {"capabilities": capabilities}
        self._first.append(self._watch.start("migrate-set-capabilities", settings))
        if self._restore:
            uri = {"uri": f"fd:{words.STATE_FD}"}
            self._first.append(self._watch.start("migrate-incoming", uri))

    @property
    def agent(self) -> Socket:
        """Our end of the agent's channel; whoever takes it closes it."""
        self._agent_taken = True
        return self._agent

    @property
    def process(self) -> Process:
        """The VMM's process."""
        return self._watch.process

    @property
    def pid(self) -> int:
        """The VMM's process id on the host."""
        return self._watch.process.pid

    def wait_ready(self, timeout: float) -> None:
        """See ``Vm.wait_ready``."""
        try:
            self._memory.fill()
            self.process.confirm()
            self._until_ready(time.monotonic() + timeout)
        except HypervisorError as error:
            if not self._watch.answered and not error.hint:
                error.hint = _hint(self._root.program, self._machine.accelerator, error.why)
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise
        self._watched = True
        self._ended.acquire()
        _thread.start_new_thread(self._follow, ())

    def _until_ready(self, deadline: float) -> None:
        watch, listener = self._watch, self.process.listener
        if listener >= 0:
            watch.register(listener, lambda: self._memory.give(self.process))
        while not watch.answered:
            self._turn(deadline)
        if listener >= 0:
            watch.forget(listener)
            self.process.close_listener()
        self._check_version()
        self._memory.done()
        confine.empty_root(self.process, self._root.targets)
        self._first.append(watch.start("cont"))
        while not watch.running:
            self._turn(deadline)

    def _turn(self, deadline: float) -> None:
        watch = self._watch
        left = deadline - time.monotonic()
        if left <= 0:
            raise HypervisorError(
                "QEMU did not start the virtual machine in time", why=watch.errors.text()[-500:],
                console=self.console_tail(),
            )  # fmt: skip
        watch.turn(left)
        if watch.death:
            raise HypervisorError(
                "the virtual machine did not start", why=watch.death, console=self.console_tail()
            )
        for pending in self._first:
            if pending.reply is not None and pending.reply.error:
                raise HypervisorError(f"QEMU refused {pending.name}", why=pending.reply.error)

    def _check_version(self) -> None:
        version = self._watch.version()
        if version < OLDEST_VERSION:
            raise HypervisorError(
                f"this QEMU is too old: {'.'.join(map(str, version))}",
                why=f"{'.'.join(map(str, OLDEST_VERSION))} or newer is needed",
                hint="set path in the section hypervisor.qemu of the configuration",
            )

    def _follow(self) -> None:
        try:
            self._watch.follow()
        finally:
            self._ended.release()

    def on_death(self, callback: Callable[[str], None]) -> None:
        """See ``Vm.on_death``."""
        self._watch.on_death(callback)

    def death(self) -> str:
        """See ``Vm.death``."""
        return self._watch.death

    def console_tail(self) -> str:
        """See ``Vm.console_tail``."""
        return self._watch.console.text()

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """A monitor command's value. Raises ``HypervisorError``."""
        return self._watch.execute(command, arguments)

    def pause(self) -> None:
        """Stop all virtual processors."""
        self.execute("stop")

    def resume(self) -> None:
        """Let them run."""
        self.execute("cont")

    def plug_share(self) -> None:
        """See ``Vm.plug_share``."""
        self.execute("device_add", share_device(self._machine))

    def plug_nic(self, slot: int, tap: int, vhost: int) -> None:
        """See ``Vm.plug_nic``."""
        require(self._machine, network_hotplug=True)
        for name, fd in ((f"tap{slot}", tap), (f"vhost{slot}", vhost)):
            if fd >= 0:
                check(self._watch.send_descriptor(name, fd).wait(_PLUG_TIMEOUT_S), "take a tap")
        self.execute("netdev_add", nic_peer(slot, vhost=vhost >= 0))
        try:
            self.execute("device_add", nic_device(slot))
        except HypervisorError:
            self.execute("netdev_del", {"id": f"net{slot}"})
            raise

    @property
    def binds_disks(self) -> bool:
        """See ``Vm.binds_disks``."""
        return self._watch.version() >= _REOPENING_VERSION

    def bind_disk(self, slot: int, fd: int) -> None:
        """See ``Vm.bind_disk``."""
        held = {"fdset-id": slot}
        check(self._watch.start_with("add-fd", held, fd).wait(_PLUG_TIMEOUT_S), "add-fd")
        try:
            node = words.slot_file(slot)
            self.execute("blockdev-add", node)
            try:
                self.execute("blockdev-reopen", {"options": [words.slot_node(slot)]})
            except HypervisorError:
                self.execute("blockdev-del", {"node-name": node["node-name"]})
                raise
        finally:
            self.execute("remove-fd", held)  # the node has its own

    def plug_disk(self, number: int, fd: int, *, readonly: bool, is_device: bool) -> None:
        """See ``Vm.plug_disk``."""
        require(self._machine, block_hotplug=True)
        held = {"fdset-id": words.disk_set(number)}
        check(self._watch.start_with("add-fd", held, fd).wait(_PLUG_TIMEOUT_S), "add-fd")
        try:
            node = words.disk_node(number, readonly=readonly, is_device=is_device)
            self.execute("blockdev-add", node)
            try:
                self.execute("device_add", words.disk_device(number))
            except HypervisorError:
                self.execute("blockdev-del", {"node-name": node["node-name"]})
                raise
        finally:
            self.execute("remove-fd", held)  # the node has its own

    def unplug_disk(self, number: int) -> None:
        """See ``Vm.unplug_disk``."""
        device = words.disk_device(number)
        queue = self._watch.queue("DEVICE_DELETED")
        try:
            self.execute("device_del", {"id": device["id"]})
            while queue.get(timeout=_PLUG_TIMEOUT_S).get("device") != device["id"]:
                pass
            self.execute("blockdev-del", {"node-name": device["drive"]})
        except Empty:
            raise HypervisorError(f'the guest does not let go of disk "{number}"') from None
        finally:
            self._watch.drop("DEVICE_DELETED", queue)

    def plug_memory(self, slot: int, mib: int) -> None:
        """See ``Vm.plug_memory``."""
        require(self._machine, memory_hotplug=True)
        self.execute("object-add", more_memory(self._machine, slot, mib))
        try:
            self.execute("device_add", memory_device(slot))
        except HypervisorError:
            self.execute("object-del", {"id": f"memory{slot}"})
            raise

    def save(self, state: int) -> None:
        """Write the state of all devices, without the memory, and stop for good.

        Raises ``HypervisorError``.
        """
        self._watch.send_descriptor("state", state).wait(_SAVE_TIMEOUT_S)
        queue = self._watch.queue("MIGRATION")
        self.execute("migrate", {"uri": "fd:state"})
        status = ""
        while status not in ("completed", "failed", "cancelled"):
            try:
                status = queue.get(timeout=_SAVE_TIMEOUT_S)["status"]
            except Empty:
                status = "failed"
        self._watch.drop("MIGRATION", queue)
        if status != "completed":
            why = self.execute("query-migrate").get("error-desc", status)
            raise HypervisorError("QEMU could not save the machine's state", why=why)

    def stop(self) -> None:
        """See ``Vm.stop``."""
        with self._stopping:
            if self._closed:
                return
            self._closed = True
            self._watch.expect_death()
            self._memory.done()
            self.process.kill()
            if not self._watched:
                self.process.wait()
                self._watch.turn(0)
            elif self._ended.acquire(timeout=_STOP_TIMEOUT_S):
                self._ended.release()
            else:
                raise HostError("QEMU does not die", why=f"process {self.pid}")
            self.process.close()
            self._watch.close()
            if not self._agent_taken:
                self._agent.close()
