"""``kata run`` with ready sandboxes of a pool: the same in every way but the time it takes."""

import hashlib
import json
import os
import shutil
import signal
import time

import pytest

from support import isolation, leaks, oci_image
from support.pool import KATA, serving
from support.vm import IMAGE, RESTING

BYTES = bytes(range(256)) * 4096
LAYERS = 3  # what fits: one disk less than are wired


@pytest.fixture
def pool(kata, directory):
    """A pool of one, in the state root of the command."""
    argv = [KATA, "--root", kata.state, "--data-root", kata.data]
    with serving(argv, kata.env, 1, f"{directory}/factory.log") as kept:
        yield kept
    assert not [p for p in leaks.processes() if "kata-ready" in p]
    if os.path.lexists(f"{kata.state}/factory.sock"):  # it was killed
        os.unlink(f"{kata.state}/factory.sock")


def gone(pid):
    """Whether a process ends within seconds."""
    end = time.monotonic() + 20
    while leaks.lives(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not leaks.lives(pid)


def left(kata):
    """What is on disk of containers, beside the pool's own."""
    there = set(os.listdir(kata.state)) - RESTING - {"factory.sock"}
    names = f"{kata.state}/names"
    return sorted(there | set(os.listdir(names) if os.path.isdir(names) else ()))


def marks(result):
    """The names of the phases of a run with --timing, which sum to the total."""
    report = json.loads(result.err.splitlines()[-1])
    assert abs(sum(p["ms"] for p in report["phases"]) - report["total_ms"]) < 0.1
    assert all(p["ms"] >= 0 for p in report["phases"])
    return [p["name"] for p in report["phases"]]


def taken(kata, pool, *words, **options):
    """Run what takes the pool's one member; the result."""
    [member] = pool.until_full(1)
    result = kata("run", "--rm", "--timing", "--format", "json", *words, **options)
    assert "handing over" in marks(result), result.err
    assert gone(member)
    return result


def test_streams_and_codes(kata, pool):
    """Output, input and errors byte for byte; the code is the process's, or Docker's."""
    script = "cat; echo err >&2; exit 7"
    result = taken(kata, pool, "-i", IMAGE, "sh", "-c", script, input=BYTES)
    assert (result.code, result.stdout) == (7, BYTES)
    assert result.err.splitlines()[0] == "err"
    pool.until_full(1)
    result = kata("run", "--rm", IMAGE, "nosuch")
    assert (result.code, result.err.count("\n")) == (127, 0)
    assert left(kata) == []


def test_no_card_is_in_sight(kata, pool):
    """There is loopback alone, names are the container's, its process is the first."""
    script = "ls /sys/class/net; ip -o addr; hostname; echo $$"
    result = taken(kata, pool, "--hostname", "given", IMAGE, "sh", "-c", script)
    assert result.code == 0
    words = result.stdout.decode().split("\n")
    assert words[0] == "lo"
    assert [line.split()[1] for line in words[1:] if line[1:2] == ":"] in ([], ["lo"], ["lo", "lo"])
    assert "given\n1\n" in result.stdout.decode()


def test_no_two_are_alike(kata, pool):
    """Random numbers and boot ids are each one's own, and the clock is right."""
    ask = "cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1"
    seen = []
    for _ in range(2):
        begin = time.time()
        words = taken(kata, pool, IMAGE, "sh", "-c", f"{ask}; date +%s").out.split("\n")
        assert begin - 1 <= int(words[-1]) <= time.time() + 1
        seen.append(words[:2])
    assert not set(seen[0]) & set(seen[1])


def test_a_terminal(kata, pool):
    """-it gives a terminal of the caller's size; Ctrl-C reaches the process."""
    [member] = pool.ready()
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh", rows=30, columns=90) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"tty; stty size\n")
        terminal.expect(b"/dev/")
        terminal.expect(b"30 90")
        terminal.send(b"sleep 1000\n")
        time.sleep(1)
        terminal.send(b"\x03")
        terminal.expect(b"# ")
        terminal.send(b"exit 3\n")
        assert terminal.wait() == 3
    assert gone(member)


def test_volumes_and_a_directory_as_root(kata, pool, own_rootfs, directory):
    """-v is read and written, ro is kept; --rootfs is the directory itself."""
    os.mkdir(f"{directory}/data")
    volume = f"{directory}/data:/data"
    assert taken(kata, pool, "-v", volume, IMAGE, "sh", "-c", "echo in >/data/file").code == 0
    with open(f"{directory}/data/file", encoding="ascii") as file:
        assert file.read() == "in\n"
    result = taken(kata, pool, "-v", f"{volume}:ro", IMAGE, "sh", "-c", "cat /data/file; >/data/no")
    assert result.stdout == b"in\n"
    assert "Read-only file system" in result.err
    assert taken(kata, pool, "--rootfs", own_rootfs, "sh", "-c", "echo it >/mark").code == 0
    with open(f"{own_rootfs}/mark", encoding="ascii") as file:
        assert file.read() == "it\n"


def test_a_detached_life(kata, pool):
    """run -d, exec, logs, stop, rm; its supervisor was the member; a name is there once."""
    [member] = pool.ready()
    script = "trap 'exit 4' TERM; echo out; echo err >&2; while :; do sleep 0.1; done"
    identifier = kata.ok("run", "-d", "--name", "box", IMAGE, "sh", "-c", script)
    item = kata.inspect("box")
    assert (item["id"], item["pid"], item["status"]) == (identifier, member, "running")
    pool.until_full(1)
    clash = kata("run", "--rm", "--name", "box", IMAGE, "true")
    assert clash.code == 125
    assert "box" in clash.err
    assert len(pool.ready()) == 1  # none was taken for that
    assert kata.ok("exec", "box", "sh", "-c", "echo $(id -u); ls /sys/class/net") == "0\nlo"
    assert kata("exec", "-i", "box", "cat", input=BYTES).stdout == BYTES
    kata.ok("stop", "box")
    assert kata.inspect("box")["exit_code"] == 4
    logged = kata("logs", "box")
    assert (logged.stdout, logged.stderr) == (b"out\n", b"err\n")
    kata.ok("rm", "box")
    assert gone(member)
    assert left(kata) == []


def test_layers(own_images, directory):
    """What is on each layer's disk is what the guest reads; one more has a machine of its own."""
    paths, wanted = [], []
    for number in range(LAYERS + 1):
        path = f"{directory}/layer{number}"
        os.makedirs(path)
        data = os.urandom(1 << 20)
        wanted.append(hashlib.sha256(data).hexdigest())
        with open(f"{path}/file{number}", "wb") as file:
            file.write(data)
        paths.append(path)
    os.mkdir(f"{paths[0]}/bin")
    shutil.copy(shutil.which("busybox"), f"{paths[0]}/bin/sh")
    made = [oci_image.layer_of(path) for path in paths]
    for count in (LAYERS, LAYERS + 1):
        oci_image.write(f"{directory}/layout{count}", made[:count], {})
    argv = [KATA, "--root", own_images.state, "--data-root", own_images.data]
    with serving(argv, own_images.env, 1, f"{directory}/factory.log") as pool:
        for count in (LAYERS, LAYERS + 1):
            pool.until_full(1)
            image = f"oci:{directory}/layout{count}"
            result = own_images(
                "run", "--rm", "--timing", "--format", "json", image,
                "sh", "-c", "sha256sum /file*; echo x >/file0; cat /file0",
            )  # fmt: skip
            words = result.stdout.decode().split()
            assert words[0:-1:2] == wanted[:count], result.err
            assert words[-1] == "x"
            assert ("handing over" in marks(result)) == (count == LAYERS)


def test_what_does_not_fit_has_one_of_its_own(kata, pool):
    """Another shape, or no template: started as without a pool, and no member is lost."""
    before = pool.ready()
    for words in (("-m", "1g"), ("--cpus", "2"), ("--no-template",)):
        result = kata("run", "--rm", "--timing", "--format", "json", *words, IMAGE, "echo", "own")
        assert result.stdout == b"own\n"
        assert "handing over" not in marks(result)
    assert pool.ready() == before


def test_what_the_pool_has_is_as_the_table_says(kata, pool, directory):
    """The client, and what the member has become."""
    [member] = pool.ready()
    os.mkdir(f"{directory}/shared")
    with open(f"{directory}/shared/seen", "wb"):
        pass
    client = kata.start(
        "run", "--rm", "-v", f"{directory}/shared:/v", "--name", "box", IMAGE, "sleep", "1000"
    )
    try:
        end = time.monotonic() + 60
        while not kata.json("ps", "--format", "json"):
            assert time.monotonic() < end
            time.sleep(0.1)
        kata.wait_until("box", "running", 60)
        item = kata.inspect("box")
        assert item["pid"] == member
        places = {f"{directory}/": "store", kata.state: "store", kata.data: "store"}
        [daemon] = [pid for pid in leaks.children(member) if pid != item["vmm_pid"]]
        found = {
            "kata run": client.pid, "supervisor": member, "qemu": item["vmm_pid"],
            "virtiofsd": daemon,
        }  # fmt: skip
        for name, pid in found.items():
            isolation.check(name, pid, {"seen"}, places)
    finally:
        kata("rm", "-f", "box")
        client.communicate(timeout=30)


def test_a_member_that_does_not_answer_is_passed_over(kata, pool):
    """It is ended, and holds nothing of ours; the run has a machine of its own."""
    [member] = pool.ready()
    os.kill(member, signal.SIGSTOP)  # it does not answer: the next has to do without
    result = kata("run", "--rm", IMAGE, "echo", "alone")
    assert (result.code, result.stdout) == (0, b"alone\n")
    assert gone(member)
    assert left(kata) == []


def test_a_killed_supervisor(kata, pool):
    """Who waits for a supervisor that is killed hears of it, and cleans up."""
    [member] = pool.ready()
    client = kata.start("run", "--rm", IMAGE, "sh", "-c", "echo up; sleep 1000")
    assert client.stdout.readline() == b"up\n"
    os.kill(member, signal.SIGKILL)
    out, err = client.communicate(timeout=30)
    assert (client.returncode, out) == (137, b"")
    assert b"is gone: its process has ended" in err
    assert left(kata) == []


def test_the_factory_is_killed(kata, pool):
    """What runs goes on, and runs that come later have their own."""
    [member] = pool.ready()
    kata.ok("run", "-d", "--name", "box", IMAGE, "sh", "-c", "sleep 1; echo still")
    pool.process.kill()
    pool.process.wait()
    assert kata.ok("wait", "box") == "0"
    assert kata("logs", "box").stdout == b"still\n"
    kata.ok("rm", "box")
    assert gone(member)
    assert kata.ok("run", "--rm", IMAGE, "echo", "alone") == "alone"


@pytest.mark.parametrize("delay", [0.03, 0.06, 0.09, 0.12])
def test_an_interrupted_start(kata, pool, delay):
    """SIGINT while a ready one is being given a container ends the command, and leaves nothing."""
    process = kata.start("run", "--rm", IMAGE, "sleep", "1000")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    for _ in range(3):  # a process that is there already may not care
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    process.communicate(timeout=30)
    assert process.returncode in (130, 137, -2)
    assert left(kata) == []
