"""The command line as data: every verb, its arguments and its options, and nothing that acts.

Parsing, help, completion and the reference page all read these tables. Rows are tuples of
constants, which the compiler folds, so that importing them costs next to nothing; records are
made only for the verb that is asked for.
"""

from __future__ import annotations

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAG, VALUE, LIST = "flag", "value", "list"  # present or not; the last one wins; all are kept
ONE, OPTIONAL, SOME, ANY, REST = "one", "optional", "some", "any", "rest"


@record
class Option:
    """An option: ``kind`` is FLAG, VALUE or LIST; ``completer`` names what completes its value.

    ``group`` is the heading it stands under in a help that is too long for one screen; options
    of the group "" are the usual ones and are always described.
    """

    name: str
    short: str
    metavar: str
    kind: str
    help: str
    choices: tuple[str, ...] = ()
    completer: str = ""
    group: str = ""

    @property
    def attribute(self) -> str:
        """The name of the attribute that holds its value."""
        return self.name.replace("-", "_")


@record
class Argument:
    """A positional argument: exactly ONE, OPTIONAL, SOME (one or more), ANY, or the REST verbatim.

    ``unless`` names an option that takes its place.
    """

    name: str
    count: str
    metavar: str
    completer: str = ""
    choices: tuple[str, ...] = ()
    unless: str = ""


@record
class Verb:
    """A verb; ``module`` has ``run(options) -> int``. ``failure``: the exit code of its errors."""

    name: str
    module: str
    help: str
    example: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]
    usage: str = ""
    failure: int = 1
    note: str = ""
    hidden: bool = False

    @property
    def verbatim(self) -> bool:
        """Whether all that follows the first argument belongs to a command."""
        return any(a.count == REST for a in self.arguments)


# fmt: off
GLOBALS: tuple[tuple[Any, ...], ...] = (
    ("config", "", "FILE", "value", "read this configuration file", (), "file"),
    ("root", "", "DIR", "value", "keep the state of running containers here", (), "directory"),
    ("data-root", "", "DIR", "value", "keep images and templates here", (), "directory"),
    ("debug", "", "", "flag", "print a traceback with every error"),
)
_FORMAT = ("format", "", "FORMAT", "value", "print a table or json", ("table", "json"))
_QUIET = ("quiet", "q", "", "flag", "print only ids")
_NO_TRUNC = ("no-trunc", "", "", "flag", "print ids and commands in full")
_ENV = ("env", "e", "KEY[=VALUE]", "list", "set a variable, or pass on one of ours", (),
        "environment")
_CONTAINERS = ("containers", "some", "CONTAINER", "container")

_RUN = (
    ("interactive", "i", "", "flag", "keep standard input open"),
    ("tty", "t", "", "flag", "give the process a terminal"),
    ("detach", "d", "", "flag", "leave it running, print its id"),
    ("rm", "", "", "flag", "remove the container when it ends"),
    ("name", "", "NAME", "value", "name the container"),
    _ENV,
    ("volume", "v", "SRC:DST[:ro]", "list", "show a directory or file of the host", (), "file"),
    ("memory", "m", "SIZE", "value", "limit memory: 512m, 2g"),
    ("cpus", "", "NUMBER", "value", "limit processors: 2, 0.5"),
    ("rootfs", "", "DIR", "value", "use this directory in place of an image", (), "directory"),
    ("env-file", "", "FILE", "list", "read variables from a file", (), "file", "Process"),
    ("workdir", "w", "DIR", "value", "working directory of the process", (), "", "Process"),
    ("user", "u", "USER[:GROUP]", "value", "user and group: names or numbers", (), "", "Process"),
    ("group-add", "", "GROUP", "list", "add a supplementary group", (), "", "Process"),
    ("entrypoint", "", "COMMAND", "value", "replace the image's entrypoint", (), "", "Process"),
    ("init", "", "", "flag", "run an init that reaps and forwards signals", (), "", "Process"),
    ("ulimit", "", "NAME=SOFT[:HARD]", "list", "set a resource limit", (), "ulimit", "Process"),
    ("stop-signal", "", "SIGNAL", "value", "signal that asks it to stop", (), "signal", "Process"),
    ("stop-timeout", "", "SECONDS", "value", "how long it may take to stop", (), "", "Process"),
    ("tmpfs", "", "DST[:OPTIONS]", "list", "mount an empty tmpfs", (), "", "File"),
    ("read-only", "", "", "flag", "make the root file system read-only", (), "", "File"),
    ("shm-size", "", "SIZE", "value", "size of /dev/shm", (), "", "File"),
    ("hostname", "h", "NAME", "value", "host name inside", (), "", "Network"),
    ("domainname", "", "NAME", "value", "domain name inside", (), "", "Network"),
    ("add-host", "", "HOST:IP", "list", "add a line to /etc/hosts", (), "", "Network"),
    ("network", "", "MODE", "value", "network: none, loopback only (the default)", ("none",), "",
     "Network"),
    ("cap-add", "", "CAPABILITY", "list", "add a capability, or ALL", (), "capability", "Security"),
    ("cap-drop", "", "CAPABILITY", "list", "drop a capability, or ALL", (), "capability",
     "Security"),
    ("security-opt", "", "OPTION", "list", "no-new-privileges, seccomp=FILE, seccomp=unconfined",
     (), "security", "Security"),
    ("sysctl", "", "KEY=VALUE", "list", "set a kernel parameter of the container", (), "",
     "Security"),
    ("pids-limit", "", "NUMBER", "value", "limit processes; -1 for none", (), "", "Security"),
    ("label", "l", "KEY[=VALUE]", "list", "attach a label", (), "", "Other"),
    ("cidfile", "", "FILE", "value", "write the container's id to a file", (), "file", "Other"),
    ("pull", "", "POLICY", "value", "fetch the image: always, missing or never",
     ("always", "missing", "never"), "", "Other"),
    ("no-template", "", "", "flag", "boot the machine, do not restore a template", (), "",
     "Other"),
    ("timing", "", "", "flag", "print where the time went, on stderr", (), "", "Other"),
    ("format", "", "FORMAT", "value", "print the timing as a table or json", ("table", "json"), "",
     "Other"),
)
_EXEC = (
    ("interactive", "i", "", "flag", "keep standard input open"),
    ("tty", "t", "", "flag", "give the process a terminal"),
    ("detach", "d", "", "flag", "do not wait for it"),
    _ENV,
    ("env-file", "", "FILE", "list", "read variables from a file", (), "file"),
    ("workdir", "w", "DIR", "value", "working directory of the process"),
    ("user", "u", "USER[:GROUP]", "value", "user and group: names or numbers"),
)

# name, module, help, example, arguments, options, and further fields of Verb by name.
_VERBS: dict[str, tuple[Any, ...]] = {
    "run": ("run", "Run a command in a new container, in a virtual machine of its own",
            'kata run --rm -it -v "$PWD:/src" -m 1g debian:12 bash',
            (("image", "one", "IMAGE", "image", (), "rootfs"), ("command", "rest", "COMMAND")),
            _RUN,
            {"usage": "[OPTIONS] IMAGE|--rootfs DIR [--] [COMMAND [ARG...]]", "failure": 125,
             "note": "IMAGE: a stored image, [docker://]REF, oci:DIR[:TAG], "
                     "(oci|docker)-archive:FILE."}),
    "exec": ("exec", "Run a further command in a running container",
             "kata exec -it web sh",
             (("container", "one", "CONTAINER", "running"), ("command", "rest", "COMMAND")),
             _EXEC,
             {"usage": "[OPTIONS] CONTAINER [--] COMMAND [ARG...]", "failure": 125}),
    "ps": ("ps", "List containers", "kata ps -a --filter status=stopped", (),
           (("all", "a", "", "flag", "list those that have ended too"),
            ("filter", "f", "KEY=VALUE", "list", "only those with this name, id, status or label",
             (), "filter"),
            _QUIET, _NO_TRUNC, _FORMAT)),
    "logs": ("logs", "Print what a container wrote", "kata logs -f --tail 20 web",
             (("container", "one", "CONTAINER", "container"),),
             (("follow", "f", "", "flag", "go on until the container ends"),
              ("tail", "n", "LINES", "value", "only the last lines, or all"),
              ("since", "", "TIME", "value", "only from this time, or this long ago: 10m, 2h30m"),
              ("timestamps", "t", "", "flag", "print the time before each line"))),
    "stop": ("stop", "Ask containers to end, then end them", "kata stop -t 3 web", (_CONTAINERS,),
             (("time", "t", "SECONDS", "value", "how long to wait before ending it by force"),)),
    "kill": ("kill", "Send a signal to containers", "kata kill -s HUP web", (_CONTAINERS,),
             (("signal", "s", "SIGNAL", "value", "a name or number; KILL if not given", (),
               "signal"),)),
    "rm": ("rm", "Remove containers", "kata rm -f $(kata ps -aq)", (_CONTAINERS,),
           (("force", "f", "", "flag", "end them first if they run; no error if missing"),)),
    "wait": ("wait", "Wait for containers to end, print their exit codes", "kata wait web",
             (_CONTAINERS,), ()),
    "inspect": ("inspect", "Print all that is known of containers, as JSON", "kata inspect web",
                (_CONTAINERS,),
                (("format", "", "FORMAT", "value", "print json, or a table of every value",
                  ("json", "table")),)),
    "gc": ("gc", "Remove what a crash or a power cut left behind", "kata gc", (),
           (_FORMAT,)),
    "image ls": ("image", "List the images of the local store", "kata image ls --format json", (),
                 (_QUIET, _NO_TRUNC, _FORMAT)),
    "image pull": ("image", "Fetch images from a registry",
                   "kata image pull alpine:3.20",
                   (("references", "some", "REF"),),
                   (("quiet", "q", "", "flag", "print only the image's id"),)),
    "image import": ("image", "Store an image from a directory or an archive",
                     "kata image import app.tar app:1.0",
                     (("source", "one", "SOURCE", "file"), ("name", "optional", "NAME")),
                     (("quiet", "q", "", "flag", "print only the image's id"),),
                     {"note": "SOURCE: an OCI layout or archive, what docker save wrote, or the\n"
                              "root file system itself as a directory or tar archive;\n"
                              "oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE say which."}),
    "image rm": ("image", "Remove images from the local store",
                 "kata image rm alpine:3.20",
                 (("images", "some", "IMAGE", "image"),), ()),
    "image prune": ("image", "Remove layers that no image uses", "kata image prune", (),
                    (("all", "a", "", "flag", "remove images that no container uses too"),
                     _FORMAT)),
    "guest build": ("guest", "Build the kernel and the image that virtual machines start from",
                    "kata guest build", (),
                    (("output", "o", "DIR", "value", "keep guest images here", (), "directory"),
                     _FORMAT),
                    {"note": "Needs apt and its package sources; takes a minute or two."}),
    "guest ls": ("guest", "List guest images", "kata guest ls", (), (_NO_TRUNC, _FORMAT)),
    "guest rm": ("guest", "Remove guest images", "kata guest rm 3f0c",
                 (("images", "some", "ID", "guest"),),
                 (("force", "f", "", "flag", "also the only one there is"),)),
    "factory create": ("factory", "Make the template that virtual machines are copied from",
                       "kata factory create -m 1g", (),
                       (("memory", "m", "SIZE", "value", "memory of the machine: 512m, 2g"),
                        ("cpus", "", "NUMBER", "value", "its virtual processors"),
                        _FORMAT)),
    "factory status": ("factory", "List templates", "kata factory status", (), (_FORMAT,)),
    "factory destroy": ("factory", "Remove all templates", "kata factory destroy", (), ()),
    "factory serve": ("pool", "Keep virtual machines ready for engines, until it is ended",
                      "kata factory serve --size 4", (),
                      (("size", "", "NUMBER", "value",
                        "how many; vm_cache_number of the configuration"),),
                      {"note": "Needs a service manager; each one ready takes 100 MB and more."}),
    "factory pool": ("pool", "List the virtual machines that are kept ready",
                     "kata factory pool", (), (_FORMAT,)),
    "check": ("check", "Say whether this host can run containers, and what is missing",
              "kata check", (),
              (_FORMAT,),
              {"note": "Ends with 0 only if a container can run."}),
    "env": ("env", "Print the settings in force, the paths and the versions used",
            "kata env --format json", (), (_FORMAT,)),
    "install": ("install", "Make a container engine know the runtime", "kata install podman",
                (("engine", "one", "ENGINE", "", ("containerd", "crio", "docker", "podman")),),
                (("undo", "", "", "flag", "remove what it wrote, unless that was edited since"),
                 ("dry-run", "", "", "flag", "print what would be written, write nothing"),
                 ("destdir", "", "DIR", "value", "configure the machine whose files are below DIR",
                  (), "directory"),
                 ("engine-version", "", "VERSION", "value",
                  "do not ask the engine for its version")),
                {"note": "Writes one file of its own, never into another's; where an engine\n"
                         "has no place for one, it prints what to add to which file."}),
    "version": ("version", "Print versions", "kata version", (), (_FORMAT,)),
    "completion": ("completion", "Print a completion script for a shell",
                   "source <(kata completion bash)",
                   (("shell", "one", "SHELL", "", ("bash", "zsh")),), ()),
    "help": ("help", "Describe a command with all its options", "kata help run",
             (("words", "any", "COMMAND", "verb"),), ()),
    "__complete": ("complete", "Print what may come next", "kata __complete zsh -- run --na",
                   (("shell", "one", "SHELL", "", ("bash", "zsh")), ("words", "rest", "WORD")), (),
                   {"hidden": True}),
}

GROUPS = {
    "image": "Images of containers",
    "guest": "The kernel and image that machines start from",
    "factory": "Templates of machines, a pool",
}

ALIASES = {
    "images": "image ls", "pull": "image pull", "rmi": "image rm",
    "image list": "image ls", "image remove": "image rm", "image load": "image import",
    "guest list": "guest ls", "guest remove": "guest rm", "guest images": "guest ls",
    "factory init": "factory create", "factory ls": "factory status",
    "factory rm": "factory destroy",
}

# The order of ``kata --help``; ``version`` is among its options.
SECTIONS = (
    ("Containers", ("run", "exec", "ps", "logs", "stop", "kill", "rm", "wait", "inspect", "gc")),
    ("Images and machines", ("image", "guest", "factory")),
    ("This installation", ("check", "install", "env", "completion")),
)
# fmt: on


def names() -> list[str]:
    """The full names of all verbs that people use."""
    return [name for name in _VERBS if not name.startswith("__")]


def has(name: str) -> bool:
    """Whether there is a verb of this full name."""
    return name in _VERBS


def verb(name: str) -> Verb:
    """The verb of this full name; raises ``KeyError``."""
    module, text, example, arguments, options, *more = _VERBS[name]
    return Verb(
        name,
        f"kata.cli.{module}",
        text,
        example,
        tuple([Argument(*row) for row in arguments]),
        tuple([Option(*row) for row in options]),
        **(more[0] if more else {}),
    )


def global_options() -> tuple[Option, ...]:
    """The options that stand before the verb, and are taken after it too."""
    return tuple([Option(*row) for row in GLOBALS])
