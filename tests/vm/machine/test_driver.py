"""The QEMU driver and templates against real guests; each script runs in a fresh process."""

import json
import os
import shutil
import signal
import subprocess
import tempfile

import pytest

from support.source import CHECKOUT

PYTHON = "/usr/bin/python3"
PRELUDE = """
import sys
sys.path.insert(0, CHECKOUT + "/src")
import json, os, time
from kata.errors import KataError
from kata.hypervisors.interface import Bindings, Options
from kata.hypervisors.qemu import driver, memory, probe
from kata.linux import sparse
from kata.machine.command_line import command_line
from kata.machine.description import Machine
from kata.network.idle import IdleTaps
from kata.runtime import freeze, guest_image
from kata.runtime.template import Templates
from kata.wire.record import replace
IMAGE = guest_image.load(DATA + "/guest/default")
QEMU, UID = probe.locate(""), 1999999990
MACHINE = Machine(
    kernel=IMAGE.kernel, initrd=IMAGE.initrd, image_digest=IMAGE.digest,
    command_line=command_line("tcg"), memory_mib=256, block_slots=2,
)
TEMPLATES = Templates(ROOT, program=QEMU, uid=UID)
said = []
def template(machine=MACHINE):
    return TEMPLATES.find(machine) or TEMPLATES.create(machine, say=said.append)
def clone(machine=MACHINE, private=False):
    frozen = template(machine).open(private_copy=private)
    options = Options(QEMU, UID, scratch=ROOT)
    with IdleTaps(machine.nic_slots) as nics:
        bindings = Bindings(
            memory=frozen.memory, memory_source=frozen.source, state=frozen.state, nics=nics,
        )
        vm = driver.start(replace(machine, shared_memory=private), bindings, options)
        vm.wait_ready(60)
    frozen.close()
    return vm
def tell(*values):
    print(json.dumps(values), flush=True)
def quit():
    sys.stdout.flush()
    os._exit(0)  # threads of the client may still be there
"""


@pytest.fixture(scope="module")
def root():
    """A directory for templates, shared by the tests of this file."""
    directory = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(prepared, root):
    """Run a script; gives what it tells. No QEMU of it may be left."""

    def start(text):
        head = f"CHECKOUT, DATA, ROOT = {CHECKOUT!r}, {prepared!r}, {root!r}\n"
        return subprocess.Popen(
            [PYTHON, "-ISc", head + PRELUDE + text + "\nquit()"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(text):
        process = start(text)
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err.decode()
        return [json.loads(line) for line in out.splitlines()]

    finish.start = start
    return finish


@pytest.mark.parametrize("private", [False, True])
def test_a_clone_answers_with_an_empty_root(run, private):
    """A copy of the template runs, its VMM sees nothing, and the template's memory is untouched."""
    script = f"""
made = template()
before = os.stat(made.directory + "/memory").st_mtime_ns
vm = clone(private={private})
freeze.configured(vm, 60)
proc = f"/proc/{{vm.pid}}"
maps = [line.split() for line in open(proc + "/maps") if "memory" in line]
held = [os.readlink(f"{{proc}}/fd/{{n}}") for n in os.listdir(proc + "/fd")]
tell(os.listdir(proc + "/root"), maps[0][1], sorted(h for h in held if "memory" in h))
vm.stop()
vm.stop()
tell(os.path.exists(proc), os.stat(made.directory + "/memory").st_mtime_ns == before)
"""
    (listing, protection, held), (alive, untouched) = run(script)
    assert listing == []
    assert protection == ("rw-s" if private else "rw-p")
    assert len(held) == 1
    assert not alive
    assert untouched


def test_a_template_s_memory_is_held_read_only(run):
    """The VMM cannot write to the file that all copies share: its descriptor does not allow it."""
    script = """
vm = clone()
proc = f"/proc/{vm.pid}"
for n in os.listdir(proc + "/fd"):
    if "memory" in os.readlink(f"{proc}/fd/{n}"):
        lines = dict(l.split(":") for l in open(f"{proc}/fdinfo/{n}").read().splitlines())
        tell(int(lines["flags"], 8) & os.O_ACCMODE)
vm.stop()
"""
    assert run(script) == [[os.O_RDONLY]]


def test_without_notifications_a_copy_is_used(run):
    """A kernel that cannot intercept opens still runs clones, and leaves no copy behind."""
    script = """
template()
memory.seccomp_notify.available = lambda: False
vm = clone()
freeze.configured(vm, 60)
tell(os.path.exists(ROOT + "/memory"), os.listdir(f"/proc/{vm.pid}/root"))
vm.stop()
"""
    assert run(script) == [[False, []]]


def test_an_agent_that_crashes_ends_the_machine(run):
    """On a machine without a power switch, too: at once, with its traceback.

    Under emulation a microvm shows its kernel no device, so the agent finds no port.
    """
    [[said, console]] = run("""
machine = replace(MACHINE, machine_type="microvm")
try:
    freeze.try_boot(machine, QEMU, UID, 120)
except KataError as error:
    tell(str(error), error.console)
""")
    assert "restarted itself" in said
    assert 'no virtio-serial port "kata.agent.0"' in console
    assert "Traceback" in console


@pytest.mark.parametrize("kind", ["q35"])
def test_other_machine_types(run, kind):
    """A template of another machine type is made and copied like any."""
    script = f"""
machine = replace(MACHINE, machine_type={kind!r}, nic_slots=1)
vm = clone(machine)
freeze.configured(vm, 60)
tell(vm.death())
vm.stop()
"""
    assert run(script) == [[""]]


def test_death_is_told_at_once(run):
    """A VMM that is killed tells why, to whoever listens, before and after."""
    script = """
from _queue import SimpleQueue
heard = SimpleQueue()
vm = clone()
vm.on_death(heard.put)
os.kill(vm.pid, 9)
first = heard.get(timeout=10)
vm.on_death(heard.put)
tell(first, heard.get(timeout=10), vm.death())
try:
    vm.pause()
except KataError as error:
    tell(type(error).__name__, str(error))
vm.stop()
"""
    (*told,), (kind, text) = run(script)
    assert set(told) == {"QEMU was killed by signal 9"}
    assert kind == "HypervisorError"
    assert "killed by signal 9" in text


def test_nobody_is_told_of_a_death_we_caused(run):
    """``stop`` is no death by itself."""
    script = """
vm = clone()
vm.on_death(lambda reason: tell("told", reason))
vm.stop()
tell(vm.death())
"""
    assert run(script) == [["QEMU was killed by signal 9"]]


def test_a_kernel_that_does_not_come_up_shows_its_console(run):
    """A boot that fails ends in an error with the last lines of the guest's console."""
    script = """
with open(ROOT + "/initrd", "wb"):
    pass
order = freeze.Order(replace(MACHINE, initrd=ROOT + "/initrd"), QEMU, UID, (), ROOT, 60.0)
vm = freeze.boot(order)
try:
    freeze.configured(vm, 60.0)
except KataError as error:
    tell(type(error).__name__, str(error), error.console)
vm.stop()
os.unlink(ROOT + "/initrd")
"""
    [(kind, text, console)] = run(script)
    assert kind == "HypervisorError"
    assert "did not boot" in text
    assert "Kernel panic" in console


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/usr/bin/true", "did not start: QEMU ended with status 0"),
        ("/usr/bin/env", "did not start: QEMU ended with status 125: Try '/usr/bin/env --help'"),
        ("/usr/bin/nonexistent", 'cannot start nonexistent: execute "/usr/bin/nonexistent"'),
    ],
)
def test_a_wrong_program_is_no_riddle(run, program, expected):
    """What is not QEMU is told by what it said, or by the step that failed."""
    script = f"""
vm = driver.start(MACHINE, Bindings(), Options({program!r}, UID))
try:
    vm.wait_ready(20)
except KataError as error:
    tell(str(error))
"""
    [(text,)] = run(script)
    assert expected in text


def test_damage_leads_to_one_new_template(run):
    """Two starts find the damaged template at once: one makes it anew, the other waits for it."""
    script = """
path = template().directory + "/state"
os.chmod(path, 0o600)
with open(path, "r+b") as file:
    file.seek(1000)
    byte = file.read(1)
    file.seek(1000)
    file.write(bytes([byte[0] ^ 4]))
"""
    run(script)
    racers = [run.start("tell(template().key, *said)") for _ in range(2)]
    told = []
    for racer in racers:
        out, err = racer.communicate(timeout=280)
        assert racer.returncode == 0, err.decode()
        told.append(json.loads(out))
    (key, *first), (other, *second) = told
    assert key == other
    words = " ".join(first + second)
    assert words.count("making a template") == 1
    assert 'damaged (the file "state" has changed)' in words
    assert "waiting for another process" in words
    assert run("tell(TEMPLATES.find(MACHINE).key)") == [[key]]


def test_a_maker_that_is_killed_leaves_no_process(run, root):
    """SIGKILL while a template is made ends its guest; the next start makes it."""
    machine = "replace(MACHINE, memory_mib=257)"
    process = run.start(f"tell(1); template({machine})")
    process.stdout.readline()
    while not (new := [n for n in os.listdir(root) if n.startswith(".new-")]):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert new
    script = f"tell(TEMPLATES.find({machine}), TEMPLATES.collect())"
    [(found, _)] = run(script)
    assert found is None
    assert not [n for n in os.listdir(root) if n.startswith(".new-")]
