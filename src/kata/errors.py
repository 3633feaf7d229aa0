"""One exception tree for host and guest.

Every error says what failed, why, and (``hint``) what the caller can do about it::

    KataError
     +- InvalidInput          the request makes no sense as given          (INVALID_ARGUMENT)
     |   +- InvalidSpec       a field of an OCI configuration              (``path`` names it)
     |   +- InvalidConfig     a setting of the configuration file
     |   +- ImageError        an image that cannot be read or unpacked
     +- NotFound              no such container, process, image, …         (NOT_FOUND)
     +- AlreadyExists         the name or id is taken                      (ALREADY_EXISTS)
     +- WrongState            not possible in the state the thing is in    (FAILED_PRECONDITION)
     +- Unsupported           not implemented, here or at all              (UNIMPLEMENTED)
     +- HostError             this host lacks something or refused         (UNAVAILABLE)
     +- HypervisorError       the VMM died, refused, or did not boot       (UNAVAILABLE)
     +- MachineEnded          the virtual machine died under a command     (UNAVAILABLE, 137)
     +- AgentError            the agent died, answered nonsense or nothing (INTERNAL)
     +- GuestError            the guest refused an operation               (INTERNAL)
     +- CommandNotFound       the program to run does not exist            (NOT_FOUND, 127)
     +- CommandNotExecutable  it cannot be executed                        (PERMISSION_DENIED, 126)
     +- ProtocolError         a peer broke a wire protocol                 (DATA_LOSS)

Messages are lower case without a full stop; values stand in double quotes.
"""

from __future__ import annotations

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15


class KataError(Exception):
    """What failed, why, and what to do: ``what: why`` and a ``hint``.

    ``code`` is the gRPC status code the error travels with; ``exit_code`` what a command line
    ends with (Docker's convention: 125 for an error of the runtime itself).
    """

    code = UNKNOWN
    exit_code = 125

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class InvalidInput(KataError):
    """The request makes no sense as given; nothing was done."""

    code = INVALID_ARGUMENT


class InvalidSpec(InvalidInput):
    """A field of an OCI configuration is wrong; ``path`` is its JSON path (``process.args``).

    ``document`` names the file it stands in.
    """

    def __init__(
        self, path: str, why: str, *, hint: str = "", document: str = "config.json"
    ) -> None:
        super().__init__(f"{document}: {path}", why=why, hint=hint)
        self.path = path


class InvalidConfig(InvalidInput):
    """A setting of the configuration file is unknown or has a bad value."""


class ImageError(InvalidInput):
    """An image cannot be fetched, read, or unpacked."""


class NotFound(KataError):
    """The named thing does not exist."""

    code = NOT_FOUND


class AlreadyExists(KataError):
    """The name or id is already taken."""

    code = ALREADY_EXISTS


class WrongState(KataError):
    """The operation is not possible in the state the thing is in."""

    code = FAILED_PRECONDITION


class Unsupported(KataError):
    """The operation is not implemented, or not possible with what was configured."""

    code = UNIMPLEMENTED


class HostError(KataError):
    """The host lacks something that is needed, or refused an operation."""

    code = UNAVAILABLE


class HypervisorError(KataError):
    """The virtual machine monitor died, refused a command, or the guest did not come up.

    ``console`` holds the last lines of the guest's console, where there are any.
    """

    code = UNAVAILABLE

    def __init__(self, what: str, *, why: str = "", hint: str = "", console: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.console = console


class MachineEnded(KataError):
    """The virtual machine ended, and with it what was to be done in a container of it."""

    code = UNAVAILABLE
    exit_code = 137  # as of a process that was killed


class AgentError(KataError):
    """The agent died, or answered nonsense, too much, or nothing in time."""

    code = INTERNAL


class GuestError(KataError):
    """The guest refused an operation; the message names what failed and the errno."""

    code = INTERNAL


class CommandNotFound(KataError):
    """The program to run does not exist in the container."""

    code = NOT_FOUND
    exit_code = 127


class CommandNotExecutable(KataError):
    """The program to run exists and cannot be executed."""

    code = PERMISSION_DENIED
    exit_code = 126


class ProtocolError(KataError):
    """A peer sent bytes that the protocol does not allow; the connection is unusable."""

    code = DATA_LOSS


_BY_NAME: dict[str, type[KataError]] = {
    cls.__name__: cls
    for cls in (
        InvalidInput, InvalidConfig, ImageError, NotFound, AlreadyExists, WrongState, Unsupported,
        HostError, HypervisorError, MachineEnded, AgentError, GuestError, CommandNotFound,
        CommandNotExecutable, ProtocolError,
    )
}  # fmt: skip


def name_of(error: KataError) -> str:
    """The name an error travels under; ``InvalidSpec`` travels as ``InvalidInput``."""
    for cls in type(error).__mro__:
        if _BY_NAME.get(cls.__name__) is cls:
            return cls.__name__
    return ""


# for peers that do not name a class of ours; only what a bare code does say
_BY_CODE: dict[int, type[KataError]] = {
    cls.code: cls
    for cls in (
        InvalidInput, NotFound, AlreadyExists, WrongState, Unsupported, HostError, ProtocolError,
    )
}  # fmt: skip


def from_wire(code: int, name: str, what: str, hint: str) -> KataError:
    """The error a peer reported: its class by name, else by status code, else ``KataError``.

    The peer may be a hostile guest: texts are cut and made plain.
    """
    cls = _BY_NAME.get(name) or _BY_CODE.get(code, KataError)
    error = cls(plain(what, 4096), hint=plain(hint, 1024))
    error.code = code
    return error


def plain(text: str, limit: int) -> str:
    """Foreign text made safe for a terminal: no control characters but line ends and tabs.

    ``limit`` is in characters; of a longer text the first are kept.
    """
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in cut)
