"""Confined programs: what they are given is what they have. Each runs from a fresh process."""

import json
import os
import signal
import subprocess
import time

import pytest

from kata.linux.syscalls import CLONE_NEWNS
from support.host import need_root
from support.source import CHECKOUT

PYTHON = "/usr/bin/python3"
PRELUDE = f"""
import sys
sys.path.insert(0, "{CHECKOUT}/src")
import json, os, time
from kata.errors import HostError
from kata.linux import confine, seccomp_notify
from kata.linux.confine import Bind, Confinement, spawn
BINDS, LINKS = confine.program_root("{PYTHON}")
BASE = dict(uid=1999999999, gid=1999999998, binds=BINDS, links=LINKS)
def python(text, fds=None, **changes):
    return spawn(["{PYTHON}", "-ISc", text], Confinement(**{{**BASE, **changes}}),
                 fds=fds or {{}}, env={{"A": "b"}})
"""


@pytest.fixture(autouse=True)
def _root():
    need_root()


def run(text, **options):
    """What a script prints as JSON lines; it must succeed."""
    done = subprocess.run(
        [PYTHON, "-ISc", PRELUDE + text], capture_output=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


FACTS = """
import json, os
facts = {
    "root": sorted(os.listdir("/")), "cwd": os.getcwd(), "env": dict(os.environ),
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()], "pid": os.getpid(),
    "host": os.uname().nodename,
}
for name in ("/usr/new", "/new"):
    try:
        os.mkdir(name)
        facts[name] = "made"
    except OSError as error:
        facts[name] = error.strerror
print(json.dumps(facts), flush=True)
"""


def test_a_program_has_what_it_was_given():
    """Ids, root, environment and namespaces are those asked for, and nothing can be written."""
    script = f"""
process = python({FACTS!r}, {{1: 1}}, hostname="there")
process.confirm()
status = open(f"/proc/{{process.pid}}/status").read()
spaces = [n for n in os.listdir("/proc/self/ns")
          if os.readlink(f"/proc/self/ns/{{n}}") != os.readlink(f"/proc/{{process.pid}}/ns/{{n}}")]
code = process.wait()
print(json.dumps([code, dict(l.split(":\\t") for l in status.splitlines() if ":\\t" in l), spaces]))
"""
    facts, (code, status, spaces) = run(script)
    assert code == 0
    assert facts["ids"] == [[1999999999] * 3, [1999999998] * 3, []]
    assert facts["pid"] == 1
    assert facts["env"].items() - {("LC_CTYPE", "C.UTF-8")} == {("A", "b")}
    assert facts["host"] == "there"
    assert facts["cwd"] == "/"
    assert set(facts["root"]) <= {"usr", "lib", "lib64", "bin", "etc"}
    assert facts["/usr/new"] == facts["/new"] == "Read-only file system"
    assert set(spaces) >= {"mnt", "pid", "net", "ipc", "uts", "cgroup"}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"


def test_capabilities_that_are_kept_are_all_that_is_kept():
    """A mask survives execve in every set, without becoming more."""
    script = """
process = python("import time; time.sleep(30)", capabilities=0b1001)
process.confirm()
text = open(f"/proc/{process.pid}/status").read()
process.kill()
print(json.dumps([process.wait(), [l for l in text.splitlines() if l.startswith("Cap")]]))
"""
    [(code, lines)] = run(script)
    assert code == -signal.SIGKILL
    assert {line.split()[1] for line in lines} == {"0000000000000009"}


def test_descriptors_are_exactly_those_mapped():
    """Crossed and overlapping numbers arrive right; no other descriptor comes along."""
    script = """
import fcntl
a, b, c = (os.memfd_create(n) for n in "abc")
for n in (a, b, c):
    os.set_inheritable(n, True)
os.dup2(a, 3); os.dup2(b, 4); os.dup2(c, 5)
text = '''
import json, os
paths = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
print(json.dumps({p.split("/")[-1]: os.readlink(p) for p in paths if os.path.lexists(p)}))
'''
binds = BINDS + (Bind("/proc", "/proc"),)
ours, theirs = os.pipe()
process = python(text, {1: theirs, 3: 4, 4: 3, 9: 5}, binds=binds,
                 namespaces=confine.ALL_NAMESPACES & ~0x20000000)
os.close(theirs)
print(os.read(ours, 4096).decode().strip())
process.wait()
"""
    [found] = run(script)
    names = {int(n): target.split()[0] for n, target in found.items()}
    assert names[3] == "/memfd:b"
    assert names[4] == "/memfd:a"
    assert names[9] == "/memfd:c"
    assert names[0] == names[2] == "/null"  # its file system is not in this root
    assert set(names) == {0, 1, 2, 3, 4, 9}


@pytest.mark.parametrize(
    ("changes", "program", "expected"),
    [
        ("binds=BINDS + (Bind('/nonexistent', '/x'),)", PYTHON, 'open "/nonexistent"'),
        ("devices=('/nonexistent',)", PYTHON, "make the root"),
        ("rlimits=((99, 1),)", PYTHON, "set resource limits"),
        ("", "/usr/bin/nonexistent", 'execute "/usr/bin/nonexistent"'),
    ],
)
def test_a_step_that_fails_is_named(changes, program, expected):
    """What goes wrong before the program runs is an error of the host that names the step."""
    script = f"""
process = spawn(["{program}"], Confinement(**{{**BASE, **dict({changes})}}), fds={{}}, env={{}})
try:
    process.confirm()
except HostError as error:
    print(json.dumps(str(error)))
"""
    [text] = run(script)
    assert expected in text


def test_an_emptied_root_is_empty():
    """After ``empty_root`` nothing can be looked up, and what was loaded goes on running."""
    text = """
import os, sys
os.read(0, 1)
print(os.listdir("/"), file=sys.stderr)
print(os.listdir("/").__repr__().replace("'", '"'))
"""
    script = f"""
ours, theirs = os.pipe()
process = python({text!r}, {{0: ours, 1: 1}}, devices=("/dev/null",))
process.confirm()
time.sleep(0.3)
confine.empty_root(process, [b.target for b in BINDS] + [l for l, _ in LINKS] + ["/dev"])
mounts = len(open(f"/proc/{{process.pid}}/mountinfo").read().splitlines())
os.write(theirs, b"x")
print(json.dumps([process.wait(), mounts]))
"""
    assert run(script) == [[], [0, 1]]


def test_the_child_dies_with_its_parent():
    """SIGKILL of the parent ends the program, though it is pid 1 of its namespace."""
    script = """
process = python("import time; time.sleep(60)")
process.confirm()
print(process.pid, flush=True)
time.sleep(60)
"""
    argv = [PYTHON, "-ISc", PRELUDE + script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{child}") and _alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_devices_belong_to_the_program():
    """A device is made anew, owned by the program's user and nobody else's."""
    text = """
import json, os
stat = os.stat("/dev/zero")
with open("/dev/zero", "rb") as file:
    print(json.dumps([oct(stat.st_mode), stat.st_uid, len(file.read(3))]))
"""
    script = f"python({text!r}, {{1: 1}}, devices=('/dev/zero',)).wait()"
    assert run(script) == [["0o20600", 1999999999, 3]]


def test_a_program_is_never_born_of_many_threads():
    """A raw clone of a threaded process is a mistake of ours, and refused."""
    script = """
import _thread
_thread.start_new_thread(time.sleep, (5,))
try:
    python("pass")
except AssertionError as error:
    print(json.dumps(str(error)))
os._exit(0)
"""
    done = subprocess.run([PYTHON, "-ISc", PRELUDE + script], capture_output=True, check=True)
    assert done.stdout == b""  # not flushed by os._exit, but no traceback either
    assert done.stderr == b""


INTERCEPTED = """
import json, os
def content(path, flags):
    try:
        fd = os.open(path, flags)
        return os.read(fd, 5).decode()
    except OSError as error:
        return error.strerror
print(json.dumps([
    content("/agreed", os.O_RDWR), content("/agreed", os.O_RDONLY),
    content("/other", os.O_RDWR), content("/usr/bin/env", os.O_RDONLY)[1:4],
]), flush=True)
os.read(0, 1)
print(json.dumps(content("/agreed", os.O_RDWR)))
try:
    os.open("env", os.O_RDWR, dir_fd=os.open("/usr/bin", os.O_RDONLY))
except OSError as error:
    print(json.dumps(error.strerror))
"""


def test_an_open_is_answered_with_our_descriptor():
    """The agreed path gives our file, read-only as we have it; all else is as without us.

    What is opened from a directory is nothing to us, also when nobody answers any more.
    """
    script = f"""
file = os.memfd_create("file")
os.write(file, b"hello")
os.lseek(file, 0, 0)
ours, theirs = os.pipe()
process = python({INTERCEPTED!r}, {{0: ours, 1: 1}}, intercept_open=True)
process.confirm()
given = []
while len(given) < 2:
    given.append(seccomp_notify.answer(process.listener, {{"/agreed": file}}))
process.close_listener()
os.write(theirs, b"x")
print(json.dumps([process.wait(), given]))
"""
    first, late, from_directory, (code, given) = run(script)
    assert from_directory == "Permission denied"
    assert first == ["hello", "No such file or directory", "No such file or directory", "ELF"]
    assert late == "Function not implemented"
    assert code == 0
    assert given == ["/agreed", ""]


def test_without_a_mount_namespace_the_root_stays():
    """Namespaces are those asked for: without CLONE_NEWNS the host's root is seen."""
    script = f"""
text = "import os, json; print(json.dumps(os.path.isdir('/proc/self')))"
spaces = confine.ALL_NAMESPACES & ~{CLONE_NEWNS}
python(text, {{1: 1}}, namespaces=spaces, binds=(), links=()).wait()
"""
    assert run(script) == [True]
