"""Bad input and faults: one clear message, the right exit code, nothing left behind."""

import concurrent.futures
import os
import shutil
import signal
import subprocess
import time

import pytest

from kata.linux.syscalls import MNT_DETACH, mount, umount
from support.host import need_tool, wait_until_caught
from support.vm import IMAGE, Kata

PROGRESS = ("kata: fetching", "kata: packing", "kata: making")


def refused(result, *texts: str, code: int = 125) -> None:
    """One message with these texts, nothing on stdout, and the exit code."""
    assert result.code == code, result.err
    assert result.stdout == b""
    for text in texts:
        assert text in result.err, result.err
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("kata: ")]
    assert len([line for line in lines if not line.startswith(PROGRESS)]) == 1


def test_unknown_images(kata, directory):
    """An image that is nowhere, and things that are no images, are named."""
    refused(kata("run", "--rm", "--pull", "never", "nosuch-image", "true"), "nosuch-image")
    refused(kata("run", "--rm", f"oci:{directory}/nosuch", "true"), f"{directory}/nosuch")
    os.mkdir(f"{directory}/empty")
    refused(kata("run", "--rm", f"oci:{directory}/empty", "true"), f"{directory}/empty")
    with open(f"{directory}/garbage.tar", "wb") as file:
        file.write(os.urandom(100000))
    for kind in ("oci-archive", "docker-archive"):
        refused(kata("run", "--rm", f"{kind}:{directory}/garbage.tar", "true"), "garbage.tar")
    refused(kata("run", "--rm", "--rootfs", f"{directory}/nosuch", "--", "true"), "nosuch")
    assert kata.left() == []


@pytest.mark.parametrize(
    "options",
    [
        ("--nosuch",), ("-v", "relative"), ("-e", "=1"), ("-m", "lots"),
        ("-m", "1m"), ("--cpus", "0"), ("--cpus", "nan"), ("--ulimit", "nosuch=1"),
        ("--cap-add", "NOSUCH"), ("--security-opt", "seccomp=/nosuch"), ("--sysctl", "x"),
        ("--sysctl", "kernel.panic=1"), ("--network", "bridge"), ("--user", "a:b:c"),
        ("--tmpfs", "relative"), ("--name", "/"), ("--env-file", "/nosuch"), ("--hostname", "a b"),
        ("--stop-signal", "NOSUCH"), ("--add-host", "x"), ("--shm-size", "-1"), ("--workdir", "a"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_options(kata, options):
    """Each bad value is refused with the value or the option in the message."""
    result = kata("run", "--rm", *options, IMAGE, "true")
    assert result.code == 125, result.err
    assert result.stdout == b""
    assert "Traceback" not in result.err
    assert options[-1].split(":")[0].split("=")[0] in result.err or options[0] in result.err
    assert kata.left() == []


def test_an_unwritable_state_directory(prepared):
    """A state directory that cannot be is named, with what to do."""
    refused(Kata("/proc/nosuch", prepared)("run", "--rm", IMAGE, "true"), "/proc/nosuch", "hint")


@pytest.mark.parametrize(
    ("path", "text"),
    [("/nosuch/qemu", "/nosuch/qemu"), ("/bin/true", "/bin/true"), ("/bin/cat", "/bin/cat"),
     ("/etc/passwd", "/etc/passwd")],
)  # fmt: skip
def test_no_qemu_or_another_program(kata, path, text):
    """A missing QEMU, and programs that are none, are told apart from a guest that fails."""
    kata.configure(f'[hypervisor.qemu]\npath = "{path}"\n')
    result = kata("run", "--rm", IMAGE, "true")
    refused(result, text)
    assert kata.left() == []


def test_no_guest_image(kata, directory):
    """Without a guest image the command says how to make one, before it fetches any other."""
    kata.configure(f'[runtime]\nguest_image = "{directory}/nosuch"\n')
    os.mkdir(f"{directory}/empty")
    for image in (IMAGE, f"oci:{directory}/empty"):
        refused(kata("run", "--rm", image, "true"), f"{directory}/nosuch", "kata guest build")


def test_working_directories_of_the_command_line(kata):
    """The option is named, not the configuration that is made of it."""
    kata.ok("run", "-d", "--name", "one", IMAGE, "sleep", "300")
    for words in (("run", "--rm", "-w", "rel", IMAGE), ("exec", "-w", "rel", "one")):
        refused(kata(*words, "true"), '--workdir "rel"', "absolute")
    file = "/bin/busybox"
    for words in (
        ("run", "--rm", "-w", file, IMAGE), ("exec", "-w", file, "one"),
        ("exec", "-w", "/nope", "one"),
    ):
        refused(kata(*words, "true"), f'--workdir "{words[words.index("-w") + 1]}"')


def test_a_seccomp_profile_beside_the_caller(kata, directory):
    """A relative path is the caller's, though it is the supervisor that reads it."""
    with open(f"{directory}/s.json", "w", encoding="utf-8") as file:
        file.write('{"defaultAction": "SCMP_ACT_ALLOW"}')
    options = ("--rm", "--security-opt", "seccomp=s.json")
    process = kata.start("run", *options, IMAGE, "echo", "x", cwd=directory)
    assert process.communicate(timeout=60)[0] == b"x\n"


def test_a_damaged_guest_image(kata, directory):
    """A guest image whose kernel is cut short is found out before it is started."""
    shutil.copytree(os.path.realpath(f"{kata.data}/guest/default"), f"{directory}/guest")
    image = kata.json("guest", "ls", "--format", "json")[0]
    kernel = next(n for n in os.listdir(f"{directory}/guest") if n.startswith("vmlinu"))
    os.truncate(f"{directory}/guest/{kernel}", 1000)
    assert image
    kata.configure(f'[runtime]\nguest_image = "{directory}/guest"\n')
    refused(kata("run", "--rm", IMAGE, "true"), f"{directory}/guest")


def test_a_boot_that_fails_shows_the_console(kata):
    """A guest that cannot boot ends in time, with the last lines of its console."""
    kata.configure('[hypervisor.qemu]\nkernel_params = "rdinit=/nosuch"\nboot_timeout = 60\n')
    result = kata("run", "--rm", "--no-template", IMAGE, "true", timeout=100)
    assert result.code == 125
    assert "console" in result.err
    assert "panic" in result.err or "/nosuch" in result.err
    assert kata.left() == []


def test_a_disk_that_fills_up(kata, directory):
    """An image that does not fit is refused, and its pieces are removed."""
    from support import busybox

    rootfs = busybox.make(f"{directory}/rootfs")
    with open(f"{rootfs}/big", "wb") as file:
        file.write(os.urandom(8 << 20))
    small = f"{directory}/small"
    os.mkdir(small)
    mount("none", small, "tmpfs", 0, "size=4m")
    try:
        full = Kata(kata.state, small)
        refused(full("image", "import", rootfs, "big"), "no space left", code=1)
        held = [
            os.path.join(where, name)
            for where, _, names in os.walk(small) for name in names
            if os.path.getsize(os.path.join(where, name)) > 4096
        ]  # fmt: skip
        assert not held
    finally:
        umount(small, MNT_DETACH)


def test_a_full_state_directory(kata):
    """The process goes on to its end and keeps its exit code; that the log is cut is said."""
    small = f"{kata.state}/small"
    os.mkdir(small)
    mount("none", small, "tmpfs", 0, "size=64k")
    try:
        other = Kata(small, kata.data)
        result = other("run", "--name", "one", IMAGE, "sh", "-c", "seq 30000; sleep 1; exit 6")
        assert result.code == 6
        assert result.out.endswith("30000")
        [line] = result.err.splitlines()
        assert "the log is not complete" in line
        assert "No space left on device" in line
        assert other.inspect("one")["exit_code"] == 6
        assert "the log is not complete" in other.inspect("one")["error"]
        other.ok("rm", "one")
    finally:
        umount(small, MNT_DETACH)
        os.rmdir(small)


def _started(kata, *options: str):
    process = kata.start("run", "--name", "box", *options, IMAGE, "sh", "-c", "echo up; sleep 1000")
    assert process.stdout.readline() == b"up\n"
    return process, kata.inspect("box")


def test_qemu_is_killed(kata):
    """When QEMU dies the command ends at once with 137 and says so; rm leaves nothing."""
    process, state = _started(kata)
    os.kill(state["vmm_pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 137
    assert out == b""
    assert b"virtual machine" in err
    kata.wait_until("box", "stopped")
    kata.ok("rm", "box")
    assert kata.left() == []


def _exec_beside(kata, *options: str):
    process = kata.start("exec", *options, "box", "sh", "-c", "echo in; sleep 1000")
    assert process.stdout.readline() == b"in\n"
    wait_until_caught(process.pid, signal.SIGTERM)
    return process


def test_a_command_in_a_machine_that_is_killed(kata):
    """It ends with 137, as with its container, and one line says what happened."""
    first, state = _started(kata)
    quick, whole = _exec_beside(kata), _exec_beside(kata, "-e", "A=1")
    os.kill(state["vmm_pid"], signal.SIGKILL)
    for process in (quick, whole):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 137, err
        [line] = err.decode().splitlines()
        assert line.startswith("kata: the virtual machine ended: ")
    first.communicate(timeout=20)
    kata.wait_until("box", "stopped")
    kata.ok("rm", "box")


def test_a_command_whose_supervisor_is_killed(kata):
    """It ends with 137, and one line says what happened."""
    first, state = _started(kata)
    quick, whole = _exec_beside(kata), _exec_beside(kata, "-e", "A=1")
    os.kill(state["pid"], signal.SIGKILL)
    for process in (quick, whole):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 137, err
        [line] = err.decode().splitlines()
        assert line.startswith("kata: the supervisor of th")
    first.communicate(timeout=20)
    kata.ok("rm", "-f", "box")


def test_the_supervisor_is_killed(kata):
    """When the supervisor dies its machine dies with it; the command says so; rm cleans up."""
    process, state = _started(kata)
    os.kill(state["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 137, err
    assert err.startswith(b"kata: ")
    _gone(state["vmm_pid"])
    kata.wait_until("box", "stopped")
    assert kata.inspect("box")["exit_code"] == 137
    kata.ok("rm", "box")
    assert kata.left() == []


def test_a_supervisor_that_is_stopped(kata):
    """It is in nobody's way: others run, and it is removed without being asked."""
    process, state = _started(kata)
    os.kill(state["pid"], signal.SIGSTOP)
    assert kata.ok("run", "--rm", IMAGE, "echo", "x") == "x"
    kata.ok("rm", "-f", "box", timeout=10)  # as long as one that runs has for its answer
    process.communicate(timeout=20)
    _gone(state["vmm_pid"])
    assert kata.left() == []


def test_everything_is_killed(kata):
    """After a power cut, in effect, gc leaves a state root as if nothing had been."""
    process, state = _started(kata, "--rm")
    process.kill()
    os.kill(state["pid"], signal.SIGKILL)
    process.communicate()
    _gone(state["vmm_pid"])
    kata.ok("gc")
    kata("rm", "-f", "box")
    assert kata.left() == []


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} lives on")


def test_the_agent_is_killed(kata):
    """A guest whose PID 1 dies stops, and the command says why."""
    options = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
    process, _ = _started(kata, *options)
    script = "echo c > /proc/sysrq-trigger || kill -9 -1"
    kata("exec", "box", "sh", "-c", f"mount -o remount,rw /proc/sysrq-trigger; {script}")
    if process.poll() is None:  # the path stayed read-only: confinement held
        kata("kill", "box")
    process.communicate(timeout=20)
    assert process.returncode == 137
    kata.ok("rm", "box")


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.2, 0.4])
def test_a_start_that_is_killed(kata, delay):
    """SIGKILL of the command at any moment of a start leaves nothing once gc has run."""
    process = kata.start("run", "--rm", "--name", "box", IMAGE, "true")
    time.sleep(delay)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while kata.json("ps", "--format", "json") and time.monotonic() < deadline:
        time.sleep(0.1)
    kata.ok("gc")
    kata("rm", "-f", "box")
    assert kata.left() == []


def test_an_interrupted_start(kata):
    """SIGINT while a machine is being started ends the command and leaves nothing."""
    process = kata.start("run", "--rm", "--no-template", "--name", "box", IMAGE, "sleep", "1000")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert kata.left() == []


@pytest.fixture
def own_templates(kata, directory):
    """A template directory of the test's own."""
    kata.configure(f'[factory]\ntemplate_path = "{directory}/templates"\n')
    return f"{directory}/templates"


def _damage(path: str, how: str) -> None:
    os.chmod(path, 0o600)
    if how == "no":
        os.unlink(path)
    elif how == "truncate":
        os.truncate(path, os.path.getsize(path) // 2)
    else:
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x10]))


def test_a_template_is_made_once_by_two(kata, own_templates):
    """Two first runs at once both work; the template is made once."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: kata("run", "--rm", IMAGE, "echo", "x"), range(2)))
    assert [result.out for result in results] == ["x", "x"]
    assert sum("making a template" in result.err for result in results) >= 1
    made = [n for n in os.listdir(own_templates) if len(n) == 16]
    assert len(made) == 2  # the machine's, and the image's made of it


@pytest.mark.parametrize("damage", ["truncate state", "flip state", "truncate memory", "no state"])
def test_a_damaged_template_is_made_anew(kata, own_templates, damage):
    """A template that is not as it was made is found out, and made again."""
    kata.ok("run", "--rm", IMAGE, "true")
    how, name = damage.split()
    for where, _, names in os.walk(own_templates):
        if name in names:
            _damage(os.path.join(where, name), how)
    result = kata("run", "--rm", IMAGE, "echo", "x")
    assert (result.code, result.out) == (0, "x"), result.err
    assert "template" in result.err
    again = kata("run", "--rm", IMAGE, "echo", "y")
    assert (again.out, again.err) == ("y", "")


def test_a_killed_template_maker_leaves_nothing_in_the_way(kata, own_templates):
    """SIGKILL while the template is made: the next run makes it."""
    process = kata.start("run", "--rm", "--name", "box", IMAGE, "true")
    process.stderr.readline()
    time.sleep(1)
    process.kill()
    process.communicate()
    time.sleep(0.5)
    assert kata.ok("run", "--rm", IMAGE, "echo", "x") == "x"
    kata.ok("gc")
    kata("rm", "-f", "box")


def test_the_file_server_is_killed(kata, rootfs):
    """When virtiofsd dies the sandbox ends, and the command says which part failed."""
    argv = ("run", "--name", "box", "--rootfs", rootfs, "--", "sh", "-c", "echo up; sleep 1000")
    process = kata.start(*argv)
    assert process.stdout.readline() == b"up\n"
    pids = subprocess.run(
        [need_tool("pgrep"), "-P", str(kata.inspect("box")["pid"]), "virtiofsd"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 137
    assert b"file server" in err or b"virtiofsd" in err or b"virtio-fs" in err
    kata.ok("rm", "box")
