"""What a forked child does to become a container's process: create, exec, and the small init.

The rule: it never returns, never imports (the container's files must not become our code), and
tells every failure through the report pipe. After it entered a container it trusts nothing there.
"""

from __future__ import annotations

import _signal
import os
import sys

from kata.errors import GuestError, InvalidInput, KataError
from kata.guest import pipes, scheduling, staged, starthooks
from kata.guest.confine import (
    Confinement,
    default_signals,
    execute,
    execute_named,
    find_program,
)
from kata.guest.rootfs import Rootfs, console, failed, write_contents
from kata.guest.spec import MALFORMED, namespaces
from kata.linux import capabilities, sysctl, tty, users
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc
from kata.linux.fds import close_others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Plan = dict[str, Any]

INIT_FAILED = 127


def run(body: Callable[[], None], report: int, keep: list[int]) -> NoReturn:
    """Run the child's work: shut everything else off, and report whatever goes wrong."""
    try:
        sys.meta_path.clear()
        sys.path.clear()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # the agent gives way
        default_signals()
        close_others([*keep, report])
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
        body()
    except KataError as error:
        pipes.report_failure(report, error)
    except MALFORMED as error:
        why = f"{type(error).__name__}: {error}"
        pipes.report_failure(report, InvalidInput("the configuration is malformed", why=why))
    except OSError as error:
        pipes.report_failure(report, failed("set up the process", error))
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        pipes.report_failure(report, GuestError("set up the process", why=why))
    finally:
        os._exit(INIT_FAILED)


def own_null() -> int:
    """The container's null device; 0 if it has another idea of it."""
    try:
        fd = os.open("/dev/null", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return 0
    if os.fstat(fd).st_rdev == os.makedev(1, 3):
        return fd
    os.close(fd)
    return 0


class Child:
    """A child on its way to become a process."""

    def __init__(self, plan: Plan, go: int, report: int, stdio: list[int]) -> None:
        self._plan = plan
        self._go, self._report = go, report
        self._stdio = [fd if plan["streams"][n] else -1 for n, fd in enumerate(stdio)]
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._process: dict[str, Any] = plan["process"]
        self._terminal = bool(self._process.get("terminal"))
        self._confinement = Confinement(self._process, plan["seccomp"], plan["seccomp_flags"])

    def create(self, stage: str = "", *, rooted: bool = False) -> None:
        """Become the first process of a container.

        A parked child has a ``stage`` already, or is ``rooted``: its root is made and entered.
        """
        spec: dict[str, Any] = self._plan["spec"]
        if not self._plan.get("users"):
            self._join_namespaces()
            self._adjust_oom()
        self._enter_namespaces(parked=bool(stage))
        self._name_host(spec)
        personality = (spec.get("linux") or {}).get("personality")
        if personality:
            scheduling.personality(personality)
        if not rooted:
            write_parameters(spec, parked=bool(stage))
        if stage:
            self._confinement.bounded = capabilities.mask_of(staged.CAPABILITIES)
            self._confinement.keyed = True
        os.umask(0)  # modes of what is made are those asked for
        if rooted:
            self._complete_root()
        else:
            self._make_root(spec, stage)
        self._finish(make_cwd=True, wait=True)

    def before_users(self) -> None:
        """What to do with the agent's rights before entering a user namespace of one's own."""
        self._join_namespaces()
        pid = self._plan["pid"]
        if pid:
            ns.enter("pid", pid)
        if self._plan["clock"] is not None:
            ns.new_time(self._plan["clock"])
        self._join_cgroup()
        self._adjust_oom()
        self._confinement.lift_limits()

    def _make_root(self, spec: dict[str, Any], stage: str) -> None:
        choice = staged.of(spec) if stage else staged.NOTHING
        root = Rootfs(
            spec, stage, choice, mounted=self._plan["mounted"], nodes=self._plan.get("nodes")
        )
        root.group = self._plan["cgroup"]
        root.build(self._plan["files"], self._plan["contents"])
        root.enter()
        os.setsid()
        self._open_terminal(bind_console=True)
        root.hide()

    def _complete_root(self) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        write_contents(root, self._plan["contents"])
        os.close(root)
        os.setsid()
        self._open_terminal(bind_console=True)

    def exec(self, pidfd: int, kinds: tuple[str, ...]) -> None:
        """Become one more process of the container whose first process ``pidfd`` stands for.

        It was born in the container's group, and in its pid namespace.
        """
        self._adjust_oom()
        if "user" in kinds:
            self._confinement.lift_limits()
        ns.enter_process(pidfd, kinds)
        os.close(pidfd)
        if "user" in kinds:
            users.become_root()
        os.setsid()
        self._open_terminal(bind_console=False)
        self._finish(make_cwd=False, wait=self._terminal)

    def _join_cgroup(self) -> None:
        fd = os.open(f"{self._plan['cgroup']}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)

    def _join_namespaces(self) -> None:
        for kind, path in self._plan["joins"].items():
            try:
                ns.enter(kind, path)
            except OSError as error:
                raise failed(f'join the {kind} namespace "{path}"', error) from None

    def _enter_namespaces(self, *, parked: bool) -> None:
        wanted = namespaces(self._plan["spec"])
        if not parked:
            if not self._plan.get("users"):
                self._join_cgroup()
            if wanted.get("cgroup") == "":
                sc.unshare(sc.CLONE_NEWCGROUP)
            sc.mount("", "/", None, sc.MS_SLAVE | sc.MS_REC)
            if wanted.get("network") == "":
                ns.loopback_up()

    def _name_host(self, spec: dict[str, Any]) -> None:
        if spec.get("hostname"):
            sc.sethostname(spec["hostname"])
        if spec.get("domainname"):
            sc.setdomainname(spec["domainname"])

    def _adjust_oom(self) -> None:
        score = self._process.get("oomScoreAdj")
        if score:  # 0 is what the agent's children have
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, str(int(score)).encode())
            os.close(fd)

    def _open_terminal(self, *, bind_console: bool) -> None:
        if not self._terminal:
            return
        size = self._process.get("consoleSize") or {}
        rows, columns = int(size.get("height") or 0), int(size.get("width") or 0)
        if bind_console:
            master, slave = console(rows, columns)
        else:
            master, slave, _ = tty.open_pair("/dev/pts/ptmx")
            if rows or columns:
                tty.resize(master, rows, columns)
        tty.take(slave)
        self._stdio = [slave, slave, slave]
        pipes.report(self._report, pipes.TERMINAL, master)

    def _connect(self) -> None:
        """Put the standard streams in place."""
        uid = self._confinement.uid
        self._null = own_null() or self._null
        for number, fd in enumerate(self._stdio):
            if fd >= 0 and uid:
                os.fchown(fd, uid, -1)
            os.dup2(fd if fd >= 0 else self._null, number)

    def _finish(self, *, make_cwd: bool, wait: bool) -> None:
        self._connect()
        self._confinement.apply(make_cwd=make_cwd)
        args, env = self._confinement.args, self._confinement.env
        let_go, hooks = pipes.is_let_go(self._go), self._hooks()
        path = ""  # what the execution itself finds, or says why it does not
        if not let_go or hooks or self._plan["init"]:
            path = find_program(args[0], env)
        if not let_go:  # else the execution says that all is well
            pipes.report(self._report, pipes.READY)
        if wait and not await_go(self._go):
            os._exit(INIT_FAILED)
        os.close(self._go)
        if hooks:
            self._confinement.filter()
            starthooks.run(*hooks)
        if self._plan["init"]:
            self._confinement.filter()
            small_init(self._report, self._terminal)
        self._confinement.filter()
        if not path:
            execute_named(args[0], args, env, env)
        execute(path, args, env)

    def _hooks(self) -> tuple[Any, Any] | None:
        """What runs before the program, with the confinement of its process: hooks, their input."""
        hooks = (self._plan.get("spec") or {}).get("hooks") or {}
        wanted = hooks.get("startContainer")
        return (wanted, hooks.get("state") or {}) if wanted else None


def write_parameters(spec: dict[str, Any], *, parked: bool) -> None:
    """Set kernel parameters, through the agent's /proc: in the container's they are read-only."""
    own = namespaces(spec)
    wanted = dict((spec.get("linux") or {}).get("sysctl") or {})
    if parked and own.get("network") == "":
        for name, (value, default) in staged.SYSCTLS.items():
            if wanted.setdefault(name, default) == value:
                del wanted[name]
    for name, value in wanted.items():
        kind = sysctl.namespace_of(name)
        if not kind or kind not in own:
            raise InvalidInput(f'sysctl "{name}" is not in a namespace of the container')
        try:
            sysctl.write(name, value)
        except OSError as error:
            raise failed(f'sysctl "{name}" = "{value}"', error) from None


def await_go(go: int) -> bytes:
    """Wait until the process is let go; empty if it never will be.

    A container that only holds a pod's namespaces waits here for as long as the pod lives: orphans
    that come to it as the first process of its pid namespace are reaped by the kernel.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    said = os.read(go, 1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    return said


def small_init(report: int, terminal: bool) -> None:  # noqa: FBT001
    """Stay as the container's init and let the caller go on in a child of it.

    Reaps every orphan, forwards signals, and ends as the child ended.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    pid = sc.clone(0)
    if pid == 0:
        os.setpgid(0, 0)
        if terminal:
            _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            _signal.signal(_signal.SIGTTOU, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        return
    os.close(report)
    null = os.open("/", os.O_RDONLY)
    for number in range(3):
        os.dup2(null, number)
    sc.close_range(3)
    _reap_and_forward(pid)


def _reap_and_forward(pid: int) -> NoReturn:
    everything = _signal.valid_signals()
    while True:
        number = _signal.sigwait(everything)
        if number != _signal.SIGCHLD:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                found, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not found:
                break
            if found == pid:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
