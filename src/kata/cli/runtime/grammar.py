"""The command line of ``kata-runtime`` as data: runc's verbs and flags, and crun's global ones.

Rows are constants; what a verb does is in its module. Flags that mean nothing for a virtual
machine are taken all the same, for engines pass them.
Source: runc's man pages (man/*.8.md) and crun(1).
"""

from __future__ import annotations

from kata.cli.grammar import FLAG, LIST, VALUE, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Plain: TypeAlias = tuple[str, str, str, str, str]
    Row: TypeAlias = Plain | tuple[str, str, str, str, str, tuple[str, ...]]

# fmt: off
GLOBALS: tuple[Row, ...] = (
    ("root", "", "DIR", VALUE, "where containers are kept (default: /run/kata)"),
    ("log", "", "FILE", VALUE, "write errors to this file, too"),
    ("log-format", "", "FORMAT", VALUE, "text or json (default: text)", ("text", "json")),
    ("debug", "", "", FLAG, "tracebacks with errors"),
    ("systemd-cgroup", "", "", FLAG, "cgroupsPath is SLICE:PREFIX:NAME, made by systemd"),
    ("cgroup-manager", "", "NAME", VALUE, "cgroupfs, systemd or disabled"),
    ("rootless", "", "VALUE", VALUE, "true, false or auto: taken, and without effect"),
    ("config", "", "FILE", VALUE, "configuration file"),
    ("criu", "", "PATH", VALUE, "taken, and without effect"),
)
_START: tuple[Row, ...] = (
    ("bundle", "b", "DIR", VALUE, "the bundle (default: the current directory)"),
    ("console-socket", "", "PATH", VALUE, "a unix socket that is sent the terminal's master"),
    ("pidfd-socket", "", "PATH", VALUE, "a unix socket that is sent a pidfd of the process"),
    ("pid-file", "", "FILE", VALUE, "write the process id to it"),
    ("no-pivot", "", "", FLAG, "taken, and without effect"),
    ("no-new-keyring", "", "", FLAG, "taken, and without effect"),
    ("preserve-fds", "", "N", VALUE, "refused unless 0: descriptors do not reach a guest"),
)
_RUN: tuple[Row, ...] = (
    *_START,
    ("detach", "d", "", FLAG, "leave it running"),
    ("keep", "", "", FLAG, "do not delete it after its end"),
    ("no-subreaper", "", "", FLAG, "taken, and without effect"),
)
_EXEC: tuple[Row, ...] = (
    ("console-socket", "", "PATH", VALUE, "a unix socket that is sent the terminal's master"),
    ("pidfd-socket", "", "PATH", VALUE, "a unix socket that is sent a pidfd of the process"),
    ("cwd", "", "DIR", VALUE, "working directory"),
    ("env", "e", "NAME=VALUE", LIST, "an environment variable"),
    ("tty", "t", "", FLAG, "with a terminal"),
    ("user", "u", "UID[:GID]", VALUE, "user and group"),
    ("additional-gids", "g", "GID", LIST, "an additional group"),
    ("process", "p", "FILE", VALUE, "the process as JSON"),
    ("detach", "d", "", FLAG, "leave it running"),
    ("pid-file", "", "FILE", VALUE, "write the process id to it"),
    ("process-label", "", "LABEL", VALUE, "taken, and without effect"),
    ("apparmor", "", "PROFILE", VALUE, "taken, and without effect"),
    ("no-new-privs", "", "", FLAG, "set no_new_privs"),
    ("cap", "c", "NAME", LIST, "an additional capability"),
    ("preserve-fds", "", "N", VALUE, "refused unless 0"),
    ("cgroup", "", "PATH", LIST, "of the container; / alone"),
    ("ignore-paused", "", "", FLAG, "also in a paused container"),
)
_CHECKPOINT: tuple[Row, ...] = tuple(
    (name, "", "VALUE", VALUE, "") for name in (
        "image-path", "work-path", "parent-path", "status-fd", "page-server",
        "manage-cgroups-mode", "empty-ns", "lsm-profile", "lsm-mount-context", "bundle",
        "console-socket", "pid-file",
    )
) + tuple(
    (name, "", "", FLAG, "") for name in (
        "leave-running", "tcp-established", "tcp-skip-in-flight", "ext-unix-sk", "shell-job",
        "lazy-pages", "file-locks", "pre-dump", "auto-dedup", "no-subreaper", "no-pivot", "detach",
    )
)
_UPDATE: tuple[Row, ...] = (
    ("resources", "r", "FILE", VALUE, "limits as JSON, - for standard input"),
    ("blkio-weight", "", "N", VALUE, "block I/O weight"),
    ("cpu-period", "", "US", VALUE, "CFS period"),
    ("cpu-quota", "", "US", VALUE, "CFS quota"),
    ("cpu-burst", "", "US", VALUE, "CFS burst"),
    ("cpu-share", "", "N", VALUE, "relative weight"),
    ("cpu-rt-period", "", "US", VALUE, "real-time period"),
    ("cpu-rt-runtime", "", "US", VALUE, "real-time runtime"),
    ("cpu-idle", "", "N", VALUE, "idle policy"),
    ("cpuset-cpus", "", "LIST", VALUE, "processors"),
    ("cpuset-mems", "", "LIST", VALUE, "memory nodes"),
    ("kernel-memory", "", "BYTES", VALUE, "taken, and without effect"),
    ("kernel-memory-tcp", "", "BYTES", VALUE, "taken, and without effect"),
    ("memory", "", "BYTES", VALUE, "memory limit"),
    ("memory-reservation", "", "BYTES", VALUE, "soft limit"),
    ("memory-swap", "", "BYTES", VALUE, "memory and swap"),
    ("pids-limit", "", "N", VALUE, "processes"),
    ("l3-cache-schema", "", "TEXT", VALUE, "refused"),
    ("mem-bw-schema", "", "TEXT", VALUE, "refused"),
)

# verb: (module, options, least and most arguments, usage, help)
VERBS: dict[str, tuple[str, tuple[Row, ...], int, int, str, str]] = {
    "create": ("create", _START, 1, 1, "ID", "make a container up to its start"),
    "start": ("start", (), 1, 1, "ID", "start a made container"),
    "run": ("run", _RUN, 1, 1, "ID", "make and start a container"),
    "state": ("state", (), 1, 1, "ID", "print a container's state as JSON"),
    "kill": ("kill", (("all", "a", "", FLAG, "every process of the container"),), 1, 2,
             "ID [SIGNAL]", "send a signal (default: TERM)"),
    "delete": ("delete", (("force", "f", "", FLAG, "kill it first; a missing one is no error"),),
               1, 1, "ID", "remove what is left of a container"),
    "exec": ("exec", _EXEC, 1, -1, "ID [COMMAND...]", "run one more process in a container"),
    "list": ("list", (("format", "f", "FORMAT", VALUE, "table or json"),
                      ("quiet", "q", "", FLAG, "only ids")), 0, 0, "", "list containers"),
    "ps": ("ps", (("format", "f", "FORMAT", VALUE, "table or json"),), 1, -1, "ID [PS-OPTIONS]",
           "list the processes of a container"),
    "pause": ("pause", (), 1, 1, "ID", "freeze every process"),
    "resume": ("pause", (), 1, 1, "ID", "let frozen processes go on"),
    "update": ("update", _UPDATE, 1, 1, "ID", "change limits"),
    "events": ("events", (("interval", "", "DURATION", VALUE, "between statistics (default: 5s)"),
                          ("stats", "", "", FLAG, "print statistics once")), 1, 1, "ID",
               "print events and statistics as JSON"),
    "spec": ("spec", (("bundle", "b", "DIR", VALUE, "where to write it"),
                      ("rootless", "", "", FLAG, "with a user namespace for the caller")), 0, 0, "",
             "write a config.json to begin with"),
    "features": ("features", (), 0, 0, "", "print what is supported as JSON"),
    "checkpoint": ("unsupported", _CHECKPOINT, 1, 1, "ID", "not supported"),
    "restore": ("unsupported", _CHECKPOINT, 1, 1, "ID", "not supported"),
}
# fmt: on


def options(rows: tuple[Row, ...]) -> tuple[Option, ...]:
    """The rows as options."""
    return tuple(Option(*row) for row in rows)
