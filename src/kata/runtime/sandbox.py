"""One virtual machine with everything that belongs to it: disks, share, user id, agent.

Its steps are called in this order: ``launch`` (spawns, single threaded), ``prepare`` (while
the VMM starts), ``connect``, ``configure``, ``wait_ready``, and ``stop`` whatever happened.
"""

from __future__ import annotations

import _thread
import os
import select
import time

from kata.errors import AgentError, HostError, HypervisorError, KataError
from kata.hypervisors.interface import Bindings, Options
from kata.hypervisors.qemu import driver
from kata.resources.group import create
from kata.resources.plan import for_machine
from kata.runtime.planning import order, specification, storage_plan
from kata.runtime.seccomp import container_filter
from kata.runtime.uids import UserId
from kata.storage import plan as storage
from kata.storage.sources import pin
from kata.wire import quickjson
from kata.wire.agent_api import (
    ClockResponse,
    ConfigureRequest,
    ConfigureResponse,
    ExecRequest,
    SetClockRequest,
    api_hash,
)
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from kata.config.settings import Config
    from kata.hypervisors.interface import Vm
    from kata.resources.group import Entry, Group
    from kata.runtime import control_api
    from kata.runtime.machines import Launch
    from kata.runtime.request import RunRequest
    from kata.runtime.rpc import Call, Client
    from kata.runtime.template import Frozen
    from kata.runtime.timing import Marks
    from kata.storage.plan import Plan
    from kata.storage.share import RunningShare
    from kata.storage.sources import Source
    from kata.wire.agent_api import CreateContainerRequest, Seccomp

_ENTROPY = 64  # bytes: twice what the kernel's generator is keyed with
_CRASH_MARK = "kata-agent: crashed"


class Sandbox:
    """The virtual machine of one request."""

    def __init__(
        self, request: RunRequest, launch: Launch, config: Config, marks: Marks
    ) -> None:
        self._request = request
        self._launch = launch
        self._config = config
        self._marks = marks
        self._vm: Vm | None = None
        self._client: Client | None = None
        self._share: RunningShare | None = None
        self._uid: UserId | None = None
        self._group: Group | None = None
        self._opened: list[int] = []
        self._share_failure: KataError | None = None
        self._stopping = self._ready = False
        self._guest = ConfigureResponse()
        self._spec: dict[str, Any] = {}
        self._seccomp: Seccomp | None = None
        self.create_timeout = float(config.agent.create_container_timeout)

    @property
    def vmm_pid(self) -> int:
        """The process id of the VMM."""
        return self._vm.pid if self._vm is not None else 0

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
        request, runtime = self._request, self._config.runtime
        settings = self._config.hypervisor
        self._uid = UserId(f"{runtime.state_root}/uids", settings.uid_base, settings.uid_count)
        self._group = create(request.id, for_machine(self._launch.machine.memory_mib))
        entry = self._group.entry()
        self._plan = self._plan_storage()
        if self._plan.shares:
            self._start_share(entry)
        machine = replace(self._launch.machine, shared_memory=bool(self._plan.shares))
        frozen = self._open_template()
        bindings = Bindings(
            memory=frozen.memory if frozen else -1,
            memory_source=frozen.source if frozen else -1,
            state=frozen.state if frozen else -1,
            disks=tuple((layer.slot, self._open(layer.path), True) for layer in self._plan.layers),
            share=self._share.vmm_fd if self._share else -1,
        )
        options = Options(
            program=self._launch.program,
            uid=self._uid.uid,
            sandbox=settings.seccomp_sandbox,
            scratch=f"{runtime.state_root}/{request.id}",
            cgroup=entry.cgroup,
            cgroup_tasks=entry.cgroup_tasks,
        )
        self._vm = driver.start(machine, bindings, options)
        self._frozen = frozen
        self._marks.mark("spawned")

    def _open(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(
                f'cannot open the image layer "{path}"', why=error.strerror or "",
                hint="kata image rm removes the image, kata image pull fetches it again",
            ) from None
        self._opened.append(fd)
        return fd

    def _open_template(self) -> Frozen | None:
        template = self._launch.template
        if template is None:
            return None
        return template.open(private_copy=bool(self._plan.shares))

    def _plan_storage(self) -> Plan:
        request = self._request
        self._sources: dict[str, Source] = {}
        volumes = []
        for wanted in request.container.volumes:
            source = pin(wanted.source, create=True)
            self._opened.append(source.fd)
            volumes.append(
                storage.Volume(
                    source.path, wanted.destination, wanted.readonly, source.is_directory,
                    (wanted.propagation,),
                )
            )  # fmt: skip
            self._sources[source.path] = source
        rootfs: tuple[str, ...] | storage.Directory = request.layers
        if request.rootfs:
            source = pin(request.rootfs)
            self._opened.append(source.fd)
            self._sources[source.path] = source
            rootfs = storage.Directory(source.path)
        return storage_plan(rootfs, volumes, self._launch.machine.block_slots)

    def _start_share(self, entry: Entry) -> None:
        from kata.storage import share, virtiofsd

        settings = self._config.shared_fs
        if settings.kind == "none":
            raise HostError(
                "directories of the host cannot be shared", why='shared_fs is "none"',
                hint="set shared_fs in the configuration to virtio-fs",
            )
        daemon = share.Daemon(
            virtiofsd.find(settings.daemon), settings.cache, settings.extra_args,
            f"{self._config.runtime.state_root}/cache/virtiofsd",
            entry.cgroup, entry.cgroup_tasks,
        )  # fmt: skip
        sources = {s.name: self._sources[s.source].fd for s in self._plan.shares}
        directory = f"{self._config.runtime.state_root}/{self._request.id}"
        self._share = share.start(self._plan.shares, sources, daemon, directory=directory)

    def prepare(self) -> CreateContainerRequest:
        """What the agent is asked: config, filter, mounts and files of the container."""
        request = self._request
        self._spec = specification(request, self._plan)
        self._seccomp = container_filter(
            request.seccomp, self._spec["process"]["capabilities"]["bounding"],
            self._launch.kernel_release, data_root=self._config.runtime.data_root,
        )  # fmt: skip
        return order(
            request, self._plan, self._spec, self._seccomp, settled=self._launch.settled
        )

    def specification(self) -> bytes:
        """The container's config.json, as the guest has it."""
        return quickjson.dumps(self._spec).encode()

    def connect(self) -> Client:
        """Talk to the guest's agent. Raises ``HypervisorError``.

        A restored guest finds what is sent before it runs; others are waited for, so that the
        time they are told is right, and that their share is there.
        """
        from kata.runtime.rpc import Client  # while the VMM starts

        assert self._vm is not None
        if self._share is not None or self._launch.template is None:
            self.wait_ready()
        self._client = Client(self._vm.agent)
        return self._client

    def wait_ready(self) -> None:
        """Wait until the guest runs, once. Raises ``HypervisorError``."""
        assert self._vm is not None
        if self._ready:
            return
        self._ready = True
        self._vm.wait_ready(float(self._config.hypervisor.boot_timeout))
        if self._share is not None:
            self._share.settle()
            self._vm.plug_share()
            self._share.close_vmm_fd()
            _thread.start_new_thread(self._watch_share, (self._share,))
        self._close_descriptors()
        self._marks.mark("ready")

    def _watch_share(self, share: RunningShare) -> None:
        """A guest whose file server is gone would hang for ever: end it, and say why."""
        poll = select.poll()
        poll.register(share.process.pidfd, select.POLLIN)
        poll.poll()
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
            hostname=self._request.container.hostname,
            machine_id=os.urandom(16).hex(),
            sandbox_id=self._request.id,
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
            request = SetClockRequest(realtime_ns=time.time_ns() + self._delay_ns())
            answer = self._client.call("SetClock", request)
            assert isinstance(answer, ClockResponse)
            self._round_trip_ns = time.monotonic_ns() - before

    _round_trip_ns = 0

    def _delay_ns(self) -> int:
        return self._round_trip_ns // 2

    def settle(self) -> None:
        """What need not be done before the container runs."""

    def exec_request(self, wanted: control_api.ExecRequest, fds: Collection[int]) -> ExecRequest:
        """The agent's request for one more process: the container's own, changed as asked."""
        from kata.oci.defaults import overlaid
        from kata.oci.users import resolve

        process = dict(self._spec["process"])
        process["args"] = list(wanted.arguments)
        process["env"] = list(overlaid(tuple(process["env"]), tuple(wanted.environment)))
        process["terminal"] = wanted.terminal
        process.pop("consoleSize", None)
        if wanted.terminal and wanted.rows:
            process["consoleSize"] = {"height": wanted.rows, "width": wanted.columns}
        if wanted.terminal and not any(e.startswith("TERM=") for e in process["env"]):
            process["env"].append("TERM=xterm")
        process["cwd"] = wanted.cwd or process["cwd"]
        if wanted.user:
            user = resolve(wanted.user, self._request.passwd, self._request.group)
            process["user"] = {
                **process["user"], "uid": user.uid, "gid": user.gid,
                "additionalGids": [user.gid, *user.groups],
            }  # fmt: skip
        return ExecRequest(
            process=quickjson.dumps(process).encode(),
            seccomp=self._seccomp,
            stdin=0 in fds,
            stdout=1 in fds,
            stderr=2 in fds and not wanted.terminal,
        )

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
            "memory_mib": machine.memory_mib,
            "vcpus": machine.vcpus,
            "template": template.key if template else "",
            "kernel": self._guest.kernel_release,
            "guest_python": self._guest.python_version,
            "uid": self._uid.uid if self._uid else 0,
            "layers": list(self._request.layers),
            "shares": [s.source for s in self._plan.shares],
        }

    def explain(self, error: KataError) -> KataError:
        """The better reason for an error: why the VMM died, or what the agent crashed of."""
        if not isinstance(error, AgentError) or self._vm is None:
            return error
        if self._share_failure is not None:
            return self._share_failure
        reason = self._death_within(2.0)
        console = self._vm.console_tail()
        crash = console.rfind(_CRASH_MARK)
        if crash >= 0:
            return HypervisorError(
                "the agent in the guest crashed", why="its traceback is on the console",
                hint="please report this", console=console[crash:],
            )  # fmt: skip
        if reason:
            return HypervisorError(
                "the virtual machine ended", why=reason, console=console,
                hint="the container ended with it",
            )  # fmt: skip
        return error

    def _death_within(self, seconds: float) -> str:
        assert self._vm is not None
        end = time.monotonic() + seconds
        while not self._vm.death() and time.monotonic() < end:
            time.sleep(0.01)
        return self._vm.death()

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
        """End and release everything; any number of times."""
        self._stopping = True
        if self._vm is not None:
            self._vm.stop()
        if self._client is not None:
            self._client.close()
        if self._share is not None:
            self._share.stop()
        self._close_descriptors()
        if self._uid is not None:
            self._uid.release()
        if self._group is not None:
            self._group.remove()
