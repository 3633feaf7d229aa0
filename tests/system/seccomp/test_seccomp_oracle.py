"""Our filters in a real kernel, and beside runc's for the same profile."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

import kata.oci
from kata.linux.libseccomp import compiled
from kata.oci.defaults import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from kata.oci.seccomp_profile import parse, resolved

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(kata.oci.__file__)))
PROBE = os.path.join(os.path.dirname(__file__), "probe.py")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
READ, GETPID, UNSHARE, MOUNT, KEYCTL, CLONE3 = "0", "39", "272", "165", "250", "435"


def ours():
    """The capabilities that this process has to give."""
    with open("/proc/self/status") as status:
        mask = int(next(line for line in status if line.startswith("CapBnd")).split()[1], 16)
    return [name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1]


def seccomp_of(capabilities):
    path = os.path.join(os.path.dirname(kata.oci.__file__), "seccomp_default.json")
    with open(path) as file:
        return resolved(parse(file.read(), path), capabilities, kernel=(6, 1))


@pytest.fixture
def container(tmp_path):
    """Run the probe under runc, with a seccomp filter of runc's, or of ours, or none."""
    if not shutil.which("runc"):
        pytest.skip("needs runc")
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "usr", "proc", "tmp", "src", "test"):
        (bundle / "rootfs" / name).mkdir()

    def run(seccomp, program=None):
        (tmp_path / "filter").write_bytes(program or b"")
        binds = [("/usr", "/usr"), ("/bin", "/bin"), ("/lib", "/lib"), ("/lib64", "/lib64")]
        binds += [(SOURCE, "/src"), (os.path.dirname(PROBE), "/test"), (str(tmp_path), "/tmp")]
        loaded = "/tmp/filter" if program else "-"
        everything = ours()
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {
                "args": ["/usr/bin/python3", "-I", "/test/probe.py", loaded, "/src"],
                "env": ["PATH=/usr/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0},
                "capabilities": dict.fromkeys(
                    ("bounding", "effective", "permitted", "inheritable"), everything
                ),
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]
            + [
                {"destination": d, "type": "bind", "source": s, "options": ["rbind", "ro"]}
                for s, d in binds
            ],
            "linux": {
                "namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")],
                **({"seccomp": seccomp} if seccomp else {}),
            },
        }  # fmt: skip
        (bundle / "config.json").write_text(json.dumps(spec))
        name = f"kata-test-seccomp-{os.getpid()}"
        command = ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(bundle), name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def names(answers):
    """What went through the filter, in words that a failure shows."""
    return {int(n): errno.errorcode.get(code, code) for n, code in answers.items()}


@pytest.mark.parametrize(
    "capabilities", [DEFAULT_CAPABILITIES, ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")]
)
def test_same_answers_as_runc(container, capabilities):
    """Every system call gets the same answer under our program as under runc's own."""
    seccomp = seccomp_of(capabilities)
    theirs = names(container(seccomp))
    mine = names(container(None, compiled(seccomp)[0]))
    differing = {n: (theirs[n], mine[n]) for n in theirs if theirs[n] != mine[n]}
    assert differing == {}
    assert ("CAP_SYS_ADMIN" in capabilities) == (theirs[int(UNSHARE)] == "EINVAL")


def test_a_filtered_process_on_the_host(tmp_path):
    """A child under the default filter works, and is refused what Docker refuses."""
    program = tmp_path / "filter"
    program.write_bytes(compiled(seccomp_of(DEFAULT_CAPABILITIES))[0])
    command = [sys.executable, "-I", PROBE, str(program), SOURCE]
    inside = ["unshare", "--pid", "--fork", "--mount", "--ipc", "--uts", "--net", *command]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    refused = {n: answers[n] for n in (UNSHARE, MOUNT, KEYCTL)}
    assert refused == dict.fromkeys(refused, errno.EPERM)
    assert answers[CLONE3] == errno.ENOSYS
    assert answers[READ] == errno.EBADF
    assert answers[GETPID] == 0
    assert answers["1000"] == errno.ENOSYS
