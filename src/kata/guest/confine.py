"""What the first instructions of a container's process do to themselves (in the child).

The order is runc's: limits, no_new_privs, the seccomp filter (before the capabilities go if
no_new_privs is not set, for it needs CAP_SYS_ADMIN then; otherwise just before the program),
bounding set, groups and user, capabilities. Every step is irreversible and none needs /proc.
"""

from __future__ import annotations

import _signal
import os

from kata.errors import CommandNotExecutable, CommandNotFound, GuestError, InvalidInput
from kata.guest import scheduling
from kata.guest.spec import DEFAULT_PATH, arguments, environment
from kata.linux import capabilities, rlimits, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SCHEDULED = ("scheduler", "ioPriority", "execCPUAffinity")
_KEYCTL_JOIN_SESSION_KEYRING = 1
_EACCES, _EISDIR, _ENOEXEC, _ENOENT = 13, 21, 8, 2


class Confinement:
    """The confinement of one process, as its OCI process object asks for it."""

    def __init__(self, process: dict[str, Any], seccomp: bytes, seccomp_flags: int) -> None:
        self._process = process
        self._seccomp, self._seccomp_flags = seccomp, seccomp_flags
        self._no_new_privileges = bool(process.get("noNewPrivileges"))
        user = process.get("user") or {}
        self.uid, self.gid = int(user.get("uid") or 0), int(user.get("gid") or 0)
        self._groups = [int(g) for g in user.get("additionalGids") or []]
        umask = user.get("umask")
        self._umask = 0o022 if umask is None else int(umask)
        self._masks = capabilities.masks_of(process.get("capabilities") or {})
        self._limits = [
            (rlimits.number_of(limit["type"]), int(limit["soft"]), int(limit["hard"]))
            for limit in process.get("rlimits") or []
        ]
        self.args = arguments(process)
        self.env = environment(process)
        self._cwd = process.get("cwd") or "/"
        self._filtered = False
        self.bounded = capabilities.EVERY  # what the bounding set still holds
        self.keyed = False  # whether the session keyring is our own already

    def apply(self, *, make_cwd: bool) -> None:
        """Everything up to, not including, a filter that may only come last."""
        for number, soft, hard in self._limits:
            rlimits.apply(number, soft, hard)
        if not self._process.keys().isdisjoint(_SCHEDULED):
            scheduling.apply(self._process)
        os.umask(self._umask)
        if not self.keyed:
            new_keyring()
        if self._no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        entered = self._enter_cwd(make=make_cwd)
        if not self._no_new_privileges:
            self.filter()
        capabilities.limit_bounding(self._masks["bounding"], self.bounded)
        self._become_user()
        if not entered:
            self._change_directory()
        if "HOME" not in self.env:
            self.env["HOME"] = home_of(self.uid)

    def lift_limits(self) -> None:
        """Make room for the limits: raising one is a right that no user namespace gives."""
        for number, _, hard in self._limits:
            rlimits.lift(number, hard)

    def filter(self) -> None:
        """Load the seccomp filter, once."""
        if self._seccomp and not self._filtered:
            self._filtered = True
            syscalls.seccomp_set_filter(self._seccomp, self._seccomp_flags)

    def _become_user(self) -> None:
        switching = self.uid != 0
        if switching:
            syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        os.setgroups(self._groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        capabilities.apply(self._masks)
        if switching:
            syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)

    def _enter_cwd(self, *, make: bool) -> bool:
        """Enter the working directory as root; False if only the user may."""
        if not self._cwd.startswith("/"):
            raise InvalidInput(f'process.cwd "{self._cwd}" is not an absolute path')
        if make and not os.path.isdir(self._cwd):
            try:
                os.makedirs(self._cwd, 0o755)
            except FileExistsError:
                pass  # no directory: entering it says so
            except OSError as error:
                raise _cwd_error(self._cwd, error) from None
        try:
            os.chdir(self._cwd)
        except PermissionError:
            return False
        except OSError as error:
            raise _cwd_error(self._cwd, error) from None
        return True

    def _change_directory(self) -> None:
        try:
            os.chdir(self._cwd)
        except OSError as error:
            raise _cwd_error(self._cwd, error) from None


def new_keyring() -> None:
    """Join a fresh session keyring, keyctl(2): a container's keys are its own."""
    try:
        syscalls.syscall(syscalls.SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError:
        pass  # a kernel without keyrings has none to share


def _cwd_error(cwd: str, error: OSError) -> GuestError:
    return GuestError(f'chdir to cwd ("{cwd}") set in config.json failed', why=_why(error))


def _why(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def default_signals() -> None:
    """Undo what the interpreter set: these would stay ignored in the program."""
    _signal.set_wakeup_fd(-1)
    for number in (_signal.SIGPIPE, 25, _signal.SIGCHLD):  # 25: SIGXFSZ
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def home_of(uid: int) -> str:
    """The home directory in the container's /etc/passwd, "/" if it has none."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return "/"
    try:
        text = os.read(fd, 1 << 20).decode("utf-8", "surrogateescape")
    except OSError:
        return "/"
    finally:
        os.close(fd)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"


def find_program(name: str, env: dict[str, str]) -> str:
    """The file to execute for ``args[0]``, by the container's ``PATH``.

    Raises ``CommandNotFound`` and ``CommandNotExecutable`` in the words of runc.
    """
    if "/" in name:
        _check_executable(name)
        return name
    if not name:
        raise _not_in_path(name)
    for path in _candidates(name, env):
        if _is_executable(path):
            return path
    raise _not_in_path(name)


def _candidates(name: str, env: dict[str, str]) -> list[str]:
    directories = env.get("PATH", DEFAULT_PATH).split(":")
    return [f"{directory or '.'}/{name}" for directory in directories]


def _not_in_path(name: str) -> CommandNotFound:
    return CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def _is_executable(path: str) -> bool:
    try:
        _check_executable(path)
    except (CommandNotFound, CommandNotExecutable):
        return False
    return True


def _check_executable(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == _EACCES:
            raise CommandNotExecutable(f'exec: "{path}": permission denied') from None
        raise CommandNotFound(f'exec: "{path}": stat {path}: {_why(error)}') from None
    directory = mode & 0o170000 == 0o040000  # to runc that is a lack of permission, too
    if directory or not mode & 0o111 or not os.access(path, os.X_OK):
        raise CommandNotExecutable(f'exec: "{path}": permission denied')


def execute(
    path: str, args: list[str] | list[bytes], env: dict[str, str] | dict[bytes, bytes]
) -> None:
    """Become the program; returns never. Raises ``CommandNotFound`` or ``CommandNotExecutable``."""
    try:
        os.execve(path, args, env)
    except OSError as error:
        _check_executable(path)
        message = f"exec {path}: {_why(error)}"
        if error.errno == _ENOENT:  # the interpreter of a script, or the loader, is missing
            raise CommandNotFound(message) from None
        raise CommandNotExecutable(message) from None


def execute_named(
    name: str, args: list[str] | list[bytes], env: dict[str, str] | dict[bytes, bytes],
    paths: dict[str, str],
) -> None:  # fmt: skip
    """``find_program`` and ``execute`` in one, of ``paths`` only its ``PATH`` is read.

    One look says of a candidate whether it is worth a try; only why none is, is looked up.
    """
    if "/" in name:
        execute(name, args, env)
    for path in _candidates(name, paths) if name else ():
        if os.access(path, os.X_OK, effective_ids=True):  # in one system call, faccessat2(2)
            try:
                os.execve(path, args, env)
            except OSError:
                if _is_executable(path):
                    execute(path, args, env)
    execute(find_program(name, paths), args, env)
