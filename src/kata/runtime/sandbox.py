"""One virtual machine with everything that belongs to it: disks, share, user id, agent.

Its steps are called in this order: ``launch`` (spawns, single threaded), ``prepare`` (while
the VMM starts), ``connect``, ``configure``, ``wait_ready``, and ``stop`` whatever happened. One of
the pool was ``park``ed after all this, and goes on with ``adopt`` and ``configure``.
"""

from __future__ import annotations

import _thread
import os
import time

from kata.errors import AgentError, HostError
from kata.hypervisors.interface import Bindings, Options
from kata.hypervisors.qemu import driver
from kata.machine.capabilities import capabilities_of
from kata.resources.plan import for_engine
from kata.runtime import sharing
from kata.runtime.hostgroup import HostGroup
from kata.runtime.uids import UserId
from kata.runtime.uplink import Uplink
from kata.storage import plan as storage
from kata.storage.common import Common
from kata.wire.agent_api import (
    ClockResponse,
    ConfigureRequest,
    ConfigureResponse,
    PrepareRequest,
    SetClockRequest,
    api_hash,
)
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.config.settings import Config
    from kata.errors import KataError
    from kata.hypervisors.interface import Files, Vm
    from kata.resources.group import Entry, Group
    from kata.resources.plan import Limits
    from kata.runtime.disks import Disks
    from kata.runtime.follow import Followed
    from kata.runtime.growth import Growth
    from kata.runtime.machines import Launch
    from kata.runtime.rpc import Call, Client
    from kata.runtime.sharing import Served
    from kata.runtime.timing import Marks
    from kata.runtime.workload import Workload
    from kata.storage.plan import Plan, Share
    from kata.storage.share import RunningShare
    from kata.wire.agent_api import CreateContainerRequest, Storage

NO_FILES = storage.Plan("", (), (), (), ())  # of a sandbox whose containers are still to come
_ENTROPY = 64  # bytes: twice what the kernel's generator is keyed with


class Sandbox:
    """The virtual machine of one request; ``first`` is the container it is started for."""

    def __init__(
        self, first: Workload, launch: Launch, config: Config, marks: Marks, directory: str
    ) -> None:
        self._first = first
        self._launch = launch
        self._config = config
        self._marks = marks
        self._directory = directory
        self._vm: Vm | None = None
        self._client: Client | None = None
        self._share: Served | None = None
        self._uid: UserId | None = None
        self.grouping = HostGroup()
        self._opened: list[int] = []
        self._share_failure: KataError | None = None
        self._stopping = self._ready = self._share_mounted = False
        self._ending = _thread.allocate_lock()
        self._guest = ConfigureResponse()
        self._plans: dict[str, Plan] = {}
        self._common = Common()
        self._followed: Followed | None = None
        self._uplink = Uplink()
        self._disks: Disks | None = None
        self._growth: Growth | None = None
        self._growing = _thread.allocate_lock()
        self._resources, self._limited = first.resources, False  # now; limited: it has started
        self.create_timeout = float(config.agent.create_container_timeout)

    @property
    def vmm_pid(self) -> int:
        """The process id of the VMM."""
        return self._vm.pid if self._vm is not None else 0

    @property
    def client(self) -> Client:
        """The connection to the agent, after ``connect``."""
        assert self._client is not None
        return self._client

    @property
    def memory_mib(self) -> int:
        """What the machine has by now."""
        return self._growth.memory_mib if self._growth else self._launch.machine.memory_mib

    def _limits(self, *, started: bool) -> Limits:
        return for_engine(self.memory_mib, self._resources, started=started)

    def limit(self) -> None:
        """From the start of the container on, its share of the processors is all there is."""
        self._limited = True
        if self.group is not None and (self._resources.get("cpu") or {}).get("quota"):
            self.group.extend(self._limits(started=True))

    def update(self, resources: dict[str, Any]) -> None:
        """Let the first container have these from now on. Raises ``InvalidInput``."""
        from kata.runtime.update import set_on_host

        now, memory = self._limits(started=self._limited), self.memory_mib
        if self.group is not None:
            after = for_engine(memory, resources, started=self._limited)
            set_on_host(self.group, now, after)
        self._resources = resources

    def grow(self, wanted_mib: int) -> None:
        """Have memory for what the containers may use. Raises as ``Growth.reach`` does."""
        from kata.runtime.growth import Growth

        assert self._vm is not None
        with self._growing:
            if self._growth is None:
                self._growth = Growth(self._launch.machine, self._vm, self.client, self.group)
            self._growth.reach(wanted_mib)

    @property
    def group(self) -> Group | None:
        """The control group on the host."""
        return self.grouping.group

    @property
    def traces(self) -> tuple[str, ...]:
        """Paths elsewhere that are to be gone with it: its groups, the lock of its user id."""
        groups = self.group.paths if self.group is not None else ()
        return (*groups, self._uid.path) if self._uid is not None else groups

    @property
    def template(self) -> str:
        """The key of the template it was copied from; empty after a cold boot."""
        return self._launch.template.key if self._launch.template else ""

    @property
    def accelerator(self) -> str:
        """What runs the guest's code: kvm or tcg."""
        return self._launch.machine.accelerator

    def launch(self) -> None:
        """Spawn the share's daemon and the VMM; returns while they start. Raises ``HostError``."""
        runtime, settings = self._config.runtime, self._config.hypervisor
        self._uid = UserId(f"{runtime.state_root}/uids", settings.uid_base, settings.uid_count)
        entry = self.grouping.make(self._first, self._limits(started=False))
        deferred = self._first.deferred
        plan, fresh, sources = (NO_FILES, (), {}) if deferred else self._plan(self._first)
        if self._first.network >= 0:
            self._uplink.open(
                self._first.network, model=runtime.internetworking_model,
                slots=self._launch.machine.nic_slots,
            )  # fmt: skip
        files = None
        if deferred or plan.shares:
            files = self._start_share(fresh, sources, entry)
        machine = replace(self._launch.machine, shared_memory=sharing.is_plugged(self._share))
        template = self._launch.template
        frozen = (
            template.open(private_copy=machine.shared_memory, sealed=files is not None)
            if template else None
        )  # fmt: skip
        bindings = Bindings(
            memory=frozen.memory if frozen else -1,
            memory_source=frozen.source if frozen else -1,
            state=frozen.state if frozen else -1,
            disks=tuple((layer.slot, self._open(layer.path), True) for layer in plan.layers),
            share=self._share.vmm_fd if self._share else -1,
            files=files,
            nics=self._uplink.network.fds if self._uplink.network else (),
        )
        options = Options(
            program=self._launch.program,
            uid=self._uid.uid,
            sandbox=settings.seccomp_sandbox,
            scratch=self._directory,
            cgroup=entry.cgroup,
            cgroup_tasks=entry.cgroup_tasks,
        )
        self._vm = driver.start(machine, bindings, options)
        if files is not None:
            self._share.served_by(self._vm.process)  # type: ignore[union-attr]
        self._frozen = frozen
        self._marks.mark("spawned")

    def keep_ready(self) -> None:
        """Have the share mounted for good, and a half-made container wait as in a template."""
        # virtiofsd 7.2 serves no third mount: nobody unmounts this one
        request = PrepareRequest(storages=[self.share_storage()])
        self.client.call("Prepare", request, self.create_timeout)

    def park(self) -> None:
        """Let the guest stand still until ``adopt``."""
        assert self._vm is not None
        self._vm.pause()

    def wake(self) -> None:
        """Let it go on. Raises ``HypervisorError`` if it has ended."""
        assert self._vm is not None
        self._vm.resume()

    def adopt(self, first: Workload, marks: Marks) -> None:
        """Be the sandbox of ``first``, whose files come by ``add``; it was nobody's until now.

        After ``wake``, instead of ``launch``, and raises as that does.
        """
        assert self._vm is not None
        assert self._share is not None
        self._first, self._resources, self._marks = first, first.resources, marks
        self.grouping.make(first, self._limits(started=False))
        self.grouping.bring(tuple({self._vm.pid, self._share.process.pid}))
        self._uplink.move(first.network)
        self._marks.mark("adopted")

    def tell_network(self) -> Call | None:
        """Tell the guest of its network, as it is now; its answer. Before the first container."""
        assert self._vm is not None
        return self._uplink.tell(self._vm, self.client)

    def follow_network(
        self, failed: Callable[[KataError], None], told: Callable[[], None]
    ) -> None:
        """From now on, tell the guest of what changes; ``told`` is called after it."""
        assert self._vm is not None
        self._uplink.follow(self._vm, self.client, failed, told)

    def resolve_names(self, failed: Callable[[KataError], None]) -> None:
        """From now on, the engine's resolver in the sandbox's namespace answers the guest."""
        self._uplink.resolve_names(self.client, failed)

    def forward_ports(self) -> None:
        """From now on, localhost in the sandbox's namespace is the guest's. As ``Forwarder``."""
        self._uplink.forward_ports(self.client)

    def _open(self, path: str) -> int:
        from kata.runtime.disks import open_layer

        self._opened.append(open_layer(path, sealed=self._launch.machine.share_slot))
        return self._opened[-1]

    def _plan(self, workload: Workload) -> tuple[Plan, tuple[Share, ...], dict[str, int]]:
        """The files of a container, those to share from now on, and a descriptor for each name."""
        rootfs, volumes, pinned = workload.sources()
        self._opened += [source.fd for source in pinned]
        machine = self._launch.machine
        limits = storage.Limits(
            machine.block_slots, workload.first_slot, share_mounted=self._share_mounted,
            wired_share=machine.share_slot,
        )  # fmt: skip
        plan = storage.plan(workload.guest_name, rootfs, volumes, limits)
        fds = {source.path: source.fd for source in pinned}
        fresh = plan.shares
        if workload.engine:  # others have no second container
            plan, fresh = self._common.take(plan, fds)
            self._follow(plan.shares, fds)
        self._plans[workload.id] = plan
        self._share_mounted = self._share_mounted or bool(plan.shares)
        return plan, fresh, {share.name: fds[share.source] for share in fresh}

    def _follow(self, shares: tuple[Share, ...], fds: dict[str, int]) -> None:
        if any(share.copy is not None for share in shares):
            from kata.runtime.follow import Followed

            self._followed = self._followed or Followed()
            self._followed.take(shares, fds)

    def follow_files(self) -> None:
        """From now on, the guest's copies of volumes are kept up to date."""
        if self._followed is not None:
            self._followed.start(self.client)

    def _start_share(
        self, shares: tuple[Share, ...], sources: dict[str, int], entry: Entry
    ) -> Files | None:
        if self._launch.machine.share_slot:
            assert self._uid is not None
            self._share, files = sharing.by_vmm(shares, sources, self._uid.uid)
            return files
        self._share = sharing.by_daemon(shares, sources, self._config, entry, self._directory)
        return None

    def prepare(self) -> CreateContainerRequest:
        """What the agent is asked for the first container."""
        plan = self._plans[self._first.id]
        return self._first.create_request(
            plan, self._launch.kernel_release, settled=self._launch.settled
        )

    def share_storage(self) -> Storage:
        """What mounts the share, for a container that comes before all that have files in it."""
        self._share_mounted = True
        return storage.share_storage(wired=self._launch.machine.share_slot)

    def add(self, workload: Workload) -> CreateContainerRequest:
        """Make the files of one more container reachable; what the agent is asked for it.

        Raises what ``pin`` does, and ``HostError``; ``remove`` undoes it.
        """
        plan, fresh, sources = self._plan(workload)
        try:
            if self._share is None:
                raise HostError(
                    "directories of the host cannot be shared",
                    why="this virtual machine was started without a share",
                )
            self._share.add(fresh, sources)
            self._attach(plan)
            return workload.create_request(plan, self._launch.kernel_release, settled=False)
        except BaseException:
            self.remove(workload.id)
            raise
        finally:
            self._close_descriptors()

    def _attach(self, plan: Plan) -> None:
        if plan.disks or plan.layers:
            from kata.runtime.disks import Disks

            assert self._vm is not None
            sealed = self._launch.machine.share_slot
            self._disks = self._disks or Disks(self._vm, sealed=sealed)
            self._disks.attach(plan)

    @property
    def last_slot(self) -> int:
        """The last wired disk, if layers can be put behind such disks now; else -1."""
        binds = self._vm is not None and self._vm.binds_disks
        return self._launch.machine.block_slots - 1 if binds else -1

    @property
    def takes_disks(self) -> bool:
        """Whether a root file system on a block device can be the guest's to mount."""
        return capabilities_of(self._launch.machine).block_hotplug

    def remove(self, container_id: str) -> None:
        """Take the files of a container out of the share, once the guest has let go of them."""
        plan = self._plans.pop(container_id, None)
        if plan is not None and self._disks is not None:
            self._disks.unplug(plan.disks)
        gone = self._common.drop(plan) if plan is not None and self._first.engine else ()
        gone = self._followed.drop(gone) if self._followed is not None else gone
        if gone and self._share is not None:
            self._share.remove(gone)

    def connect(self) -> Client:
        """Talk to the guest's agent. Raises ``HypervisorError``.

        A restored guest finds what is sent before it runs; others are waited for, so that the
        time they are told is right, and that their share is there.
        """
        from kata.runtime.rpc import Client  # while the VMM starts

        assert self._vm is not None
        if self._client is not None:  # of one that was adopted
            return self._client
        deferred = self._first.deferred  # its containers' files come into the VMM's root
        if deferred or sharing.is_plugged(self._share) or self._launch.template is None:
            self.wait_ready()
        self._client = Client(self._vm.agent)
        self._client.call_timeout = float(self._config.agent.request_timeout)
        return self._client

    def wait_ready(self) -> None:
        """Wait until the guest runs, once. Raises ``HypervisorError``."""
        assert self._vm is not None
        if self._ready:
            return
        self._ready = True
        self._vm.wait_ready(float(self._config.hypervisor.boot_timeout))
        if sharing.is_plugged(self._share):
            sharing.plug(self._share, self._vm, self._share_ended)  # type: ignore[arg-type]
        self._close_descriptors()
        self._marks.mark("ready")

    def _share_ended(self, share: RunningShare) -> None:
        if not self._stopping:
            self._share_failure = share.failure()
            self.kill()

    def configure(self) -> Call:
        """Make the guest itself: entropy, clock, names. The first thing it is sent."""
        assert self._client is not None
        request = ConfigureRequest(
            api_hash=api_hash(),
            realtime_ns=time.time_ns(),
            entropy=os.urandom(_ENTROPY),
            hostname=self._first.hostname,
            machine_id=os.urandom(16).hex(),
            sandbox_id=self._first.id,
        )
        return self._client.start("Configure", request)

    def check_guest(self, configured: Call) -> None:
        """Take the agent's answer to ``configure``; a mismatch or silence is an error."""
        template = self._launch.template is not None
        agent, boot = self._config.agent.dial_timeout, self._config.hypervisor.boot_timeout
        answer = configured.result(float(agent if template else max(agent, boot)))
        assert isinstance(answer, ConfigureResponse)
        if answer.api_hash != api_hash():
            raise AgentError(
                "the guest image does not fit this version",
                why=f'its agent speaks "{answer.api_hash[:40]}", we speak "{api_hash()}"',
                hint="kata guest build",
            )
        self._guest = answer

    def correct_clock(self) -> None:
        """Set the guest's clock again, by an answer quick enough to be exact."""
        assert self._client is not None
        for _ in range(2):
            before = time.monotonic_ns()
            request = SetClockRequest(realtime_ns=time.time_ns() + self._round_trip_ns // 2)
            answer = self._client.call("SetClock", request)
            assert isinstance(answer, ClockResponse)
            self._round_trip_ns = time.monotonic_ns() - before

    _round_trip_ns = 0

    def describe(self) -> dict[str, object]:
        """The facts of this sandbox, for people."""
        machine = self._launch.machine
        template = self._launch.template
        return {
            "vmm": self._launch.program,
            "vmm_pid": self.vmm_pid,
            "accelerator": machine.accelerator,
            "accelerator_reason": self._launch.reason,
            "machine_type": machine.machine_type,
            "memory_mib": self.memory_mib,
            "vcpus": machine.vcpus,
            "template": template.key if template else "",
            "kernel": self._guest.kernel_release,
            "guest_python": self._guest.python_version,
            "uid": self._uid.uid if self._uid else 0,
            "layers": list(self._first.layers),
            "shares": [s.source for p in self._plans.values() for s in p.shares],
        }

    def explain(self, error: KataError) -> KataError:
        """The better reason for an error: why the VMM died, or what the agent crashed of."""
        if not isinstance(error, AgentError) or self._vm is None:
            return error
        from kata.runtime.postmortem import explained

        return self._share_failure or explained(self._vm, error)

    def kill(self) -> None:
        """End the virtual machine at once; whoever waits for its processes hears of it."""
        if self._vm is not None:
            self._vm.stop()

    def _close_descriptors(self) -> None:
        while self._opened:
            os.close(self._opened.pop())
        frozen, self._frozen = getattr(self, "_frozen", None), None
        if frozen is not None:
            frozen.close()

    def stop(self) -> None:
        """End and release everything; any number of times, and by any thread: all wait for it."""
        self._stopping = True
        with self._ending:
            self._release()

    def _release(self) -> None:
        if self._vm is not None:
            self._vm.stop()
        if self._client is not None:
            self._client.close()
        if self._followed is not None:
            self._followed.close()
        self._uplink.close_services()
        if self._share is not None:
            self._share.stop()
        self._uplink.close()
        self._close_descriptors()
        if self._uid is not None:
            self._uid.release()
        if self.group is not None and not self._first.engine:
            self.group.remove()  # an engine's group goes when the engine deletes the container
