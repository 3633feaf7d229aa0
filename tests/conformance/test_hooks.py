"""Hooks: when each kind runs, what it is given, and what its failure does."""

import json
import os

import pytest

from conformance.bundle import bind, config

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
SCRIPT = """#!/bin/sh
state=$(cat)
name=$1
log=$2
{
  printf '%s\\t' "$name" "$state"
  printf '%s' "$# "; env | grep -v -e '^PWD=' -e '^SHLVL=' -e '^_=' | tr '\\n' ' '
  printf '\\t'; readlink /proc/self/ns/net | tr '\\n' '\\t'
  echo end
} >>"$log/$name"
echo "$name" >>"$log/order"
[ -e "$log/fail-$name" ] && echo "hook says no" >&2 && exit 3
exit 0
"""


class Log:
    """What the hooks wrote."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def order(self) -> list[str]:
        """The kinds, in the order they ran."""
        try:
            with open(f"{self.folder}/order", encoding="utf-8") as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def _fields(self, kind: str) -> list[str]:
        with open(f"{self.folder}/{kind}", encoding="utf-8") as file:
            return " ".join(file.read().split("\n")).split("\t")

    def state(self, kind: str) -> dict:
        """The state a hook was given."""
        return json.loads(self._fields(kind)[1])

    def call(self, kind: str) -> str:
        """The number of its arguments, and its environment."""
        return self._fields(kind)[2]

    def network(self, kind: str) -> str:
        """The network namespace it ran in."""
        return self._fields(kind)[3]


def hooks(folder: str, script: str, kinds=KINDS) -> dict:
    """One hook of each kind; that of the container's start is found inside the container."""
    return {
        kind: [{
            "path": "/bin/sh",
            "args": ["sh", "/hook/script" if kind == "startContainer" else script, kind,
                     "/hook" if kind == "startContainer" else folder],
            "env": [f"KIND={kind}", "PATH=/usr/bin:/bin"],
        }]
        for kind in kinds
    }  # fmt: skip


def hooked(suite, folder: str, *args: str, kinds=KINDS, **changes) -> dict:
    """A config with hooks that write to ``folder``."""
    script = f"{folder}/script"
    with open(script, "w", encoding="utf-8") as file:
        file.write(SCRIPT)
    os.chmod(script, 0o755)
    # the hooks of the container run where /bin/sh may be the host's or the container's
    return config(*args, mounts=(bind(folder, "/hook", "bind"),),
                  hooks=hooks(folder, script, kinds), annotations={"org.example.hook": "yes"},
                  **changes)  # fmt: skip


@pytest.fixture(scope="module")
def ran(suite):
    """A container's life, with what had run by when."""
    log = Log(suite.folder())
    seen = {}
    with suite.created(hooked(suite, log.folder, "sh", "-c", "cat /hook/order")) as container:
        seen["created"] = log.order()
        seen["pid"] = container.pid
        seen["network"] = os.readlink(f"/proc/{container.pid}/ns/net")
        container.start().ok()
        seen["started"] = log.order()
        container.wait()
        seen["program"] = container.out.split()
        seen["ended"] = log.order()
        container.delete("--force").ok()
        seen["id"] = container.id
        seen["bundle"] = container.bundle
    return log, seen


def test_hooks_of_create(ran):
    """create runs prestart, createRuntime and createContainer, in this order, and no others."""
    assert ran[1]["created"] == ["prestart", "createRuntime", "createContainer"]


def test_hooks_of_create_are_in_the_bundle(suite):
    """A hook's relative paths begin where the configuration is."""
    there = f"{suite.folder()}/there"
    spec = config("true")
    words = ["sh", "-c", f"cat >/dev/null; pwd >{there}"]
    spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": words}]}
    with suite.created(spec) as container, open(there, encoding="utf-8") as file:
        assert file.read().strip() == os.path.realpath(container.bundle)


def test_relative_hooks(suite):
    """Those of create are found below the bundle, that of the container below its directory."""
    inside = {"path": "bin/touch", "args": ["touch", "/hook/inside"]}
    folder = suite.folder()
    spec = config("ls", "/hook", mounts=(bind(folder, "/hook", "bind"),))
    spec["hooks"] = {
        "createRuntime": [{"path": "rootfs/../hook", "args": ["hook"]}], "startContainer": [inside],
    }  # fmt: skip
    container = suite.container(spec)
    os.symlink("/bin/true", f"{container.bundle}/hook")
    container.create().ok()
    container.start().ok()
    container.wait()
    container.delete().ok()
    assert container.out == "inside\n"


def test_hooks_of_start(ran):
    """start runs startContainer before the program and poststart after it."""
    assert ran[1]["started"][3:] == ["startContainer", "poststart"]


def test_hook_before_the_program(ran):
    """The program finds that startContainer has run."""
    assert "startContainer" in ran[1]["program"]


def test_hook_of_delete(ran):
    """poststop runs at delete, not when the program ends."""
    assert "poststop" not in ran[1]["ended"]
    assert ran[0].order()[-1] == "poststop"


def test_each_hook_runs_once(ran):
    """None runs twice."""
    assert sorted(ran[0].order()) == sorted(KINDS)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("prestart", ("creating", "created")),
        ("createRuntime", ("creating", "created")),
        ("createContainer", ("creating", "created")),
        ("startContainer", ("created",)),
        ("poststart", ("running",)),
        ("poststop", ("stopped",)),
    ],
)
def test_hook_state(ran, kind, status):
    """Each gets the state on its standard input, with the id and the status of the moment."""
    state = ran[0].state(kind)
    assert state["id"] == ran[1]["id"]
    assert state["status"] in status


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart"])
def test_hook_state_names_the_process(ran, kind):
    """Hooks of the host are told the pid that the pid file holds, as network plug-ins need it."""
    assert ran[0].state(kind)["pid"] == ran[1]["pid"]


def test_hook_state_names_the_bundle(ran):
    """The state names the bundle, and has the annotations."""
    state = ran[0].state("createRuntime")
    assert state["bundle"] == ran[1]["bundle"]
    assert state["annotations"]["org.example.hook"] == "yes"


@pytest.mark.parametrize("kind", KINDS)
def test_hook_environment_and_arguments(ran, kind):
    """A hook has the environment of the config alone, and the arguments after the first."""
    words = ran[0].call(kind).split()
    assert words[0] == "2"
    assert sorted(words[1:]) == sorted([f"KIND={kind}", "PATH=/usr/bin:/bin"])


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart", "poststop"])
def test_hook_of_the_host_runs_there(ran, kind):
    """These run in the runtime's namespaces."""
    assert ran[0].network(kind) == os.readlink("/proc/self/ns/net")


def test_hook_of_the_container_runs_in_its_network(ran):
    """createContainer runs in the container's namespaces: its network is the prepared one."""
    assert ran[0].network("createContainer") == ran[1]["network"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_of_create(suite, kind):
    """A hook of create that fails makes it fail, and nothing is left."""
    log = Log(suite.folder())
    with open(f"{log.folder}/fail-{kind}", "w", encoding="utf-8"):
        pass
    suite.refused(hooked(suite, log.folder, "true")).refused("hook")
    made = [name for name in log.order() if name != "poststop"]
    assert made == list(KINDS[: KINDS.index(kind) + 1])


def test_failing_hook_of_the_start(suite):
    """startContainer that fails: the program does not run."""
    log = Log(suite.folder())
    spec = hooked(suite, log.folder, "touch", "/hook/program", kinds=("startContainer",))
    with open(f"{log.folder}/fail-startContainer", "w", encoding="utf-8"):
        pass
    with suite.created(spec) as container:
        container.start()
        assert container.wait() != 0
        assert not os.path.exists(f"{log.folder}/program")


def test_failing_hook_after_the_start(suite):
    """poststart that fails does not undo: the container can be deleted as any other."""
    log = Log(suite.folder())
    spec = hooked(suite, log.folder, "sleep", "1000", kinds=("poststart",))
    with open(f"{log.folder}/fail-poststart", "w", encoding="utf-8"):
        pass
    with suite.created(spec) as container:
        container.start()
        container.delete("--force").ok()
        assert container.wait() == 137


def test_failing_hook_after_the_end(suite):
    """poststop that fails does not keep the container from being deleted."""
    log = Log(suite.folder())
    spec = hooked(suite, log.folder, "true", kinds=("poststop",))
    with open(f"{log.folder}/fail-poststop", "w", encoding="utf-8"):
        pass
    with suite.running(spec) as container:
        container.wait()
        container.delete("--force")
        suite.runtime("state", container.id).refused("does not exist")


def test_several_hooks_run_in_order(suite):
    """Hooks of one kind run one after the other, as they are listed."""
    folder = suite.folder()
    listed = [
        {"path": "/bin/sh", "args": ["sh", "-c", f"cat >/dev/null; echo {n} >>{folder}/order"]}
        for n in range(4)
    ]
    suite.done(config("true", hooks={"createRuntime": listed}))
    assert Log(folder).order() == ["0", "1", "2", "3"]


def test_slow_hook_is_stopped(suite):
    """A hook that outlives its timeout fails."""
    hook = {"path": "/bin/sleep", "args": ["sleep", "50"], "timeout": 1}
    suite.refused(config("true", hooks={"createRuntime": [hook]})).refused("hook", "time", "killed")


def test_missing_hook_is_refused(suite):
    """A hook that is not there fails."""
    hook = {"path": "/nowhere/hook"}
    suite.refused(config("true", hooks={"createRuntime": [hook]})).refused("hook", "no such file")


def test_hook_need_not_read(suite):
    """A hook that does not read its standard input is fine."""
    hook = {"path": "/bin/true"}
    assert suite.done(config("echo", "on", hooks={"createRuntime": [hook]})).out == "on\n"
