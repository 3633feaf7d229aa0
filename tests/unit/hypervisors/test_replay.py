"""A device's registers, read from one and written to another, against a device made of dicts."""

import _socket

import pytest

from kata.errors import HypervisorError
from kata.hypervisors.qemu.replay import Gate, Panel, record

SLOT, BASE = 0x1E, 1 << 31 | 0x1E << 11
MSIX_AT, COMMON_AT, TABLE, COMMON = 0x98, 0x84, 0xFEBFF000, 0xFEBF4000
WIDTHS = {"b": 1, "w": 2, "l": 4}
QUEUES = {  # fields of the common configuration, by queue: offset -> value
    0: {0x18: 128, 0x1A: 1, 0x1C: 1, 0x20: 0x5D78000, 0x28: 0x5D78800, 0x30: 0x5D78940},
    1: {0x18: 64, 0x1A: 2, 0x1C: 1, 0x20: 0x5D79000, 0x28: 0x5D79800, 0x30: 0x5D79940},
}


class Machine:
    """What answers on the other side of the channel: ports, memory, one device."""

    def __init__(self):
        self.config = dict.fromkeys(range(256), 0)
        self.memory, self.address, self.ports = {}, 0, {}
        self.status, self.features, self.queues = [0], {0: 0, 1: 0}, {0: {}, 1: {}}
        self.put(self.config, 0x34, 1, COMMON_AT)
        for at, value in ((0, 0x09), (1, MSIX_AT), (3, 1), (4, 4)):
            self.put(self.config, COMMON_AT + at, 1, value)
        for at, value, size in ((0, 0x11, 1), (2, 2, 2), (4, 1, 4)):
            self.put(self.config, MSIX_AT + at, size, value)

    def set_up(self):
        """As a driver leaves it."""
        for at, value, size in (
            (0x04, 0x507, 2), (0x14, TABLE, 4), (0x20, COMMON | 0xC, 4), (0x3C, 10, 1),
            (MSIX_AT + 2, 0x8002, 2),
        ):  # fmt: skip
            self.put(self.config, at, size, value)
        for number in range(12):
            self.put(self.memory, TABLE + 4 * number, 4, 0xFEE0_0000 + number)
        self.status, self.features = [15], {0: 0x3000_0000, 1: 1}
        self.queues = {n: dict(fields) for n, fields in QUEUES.items()}
        return self

    @staticmethod
    def put(where, at, size, value):
        for number in range(size):
            where[at + number] = value >> 8 * number & 0xFF

    @staticmethod
    def get(where, at, size):
        return sum(where.get(at + number, 0) << 8 * number for number in range(size))

    def common(self, at, value=None):
        select = self.get(self.memory, COMMON + 0x16, 2)
        if at == 0x0C:
            half = self.get(self.memory, COMMON + 8, 4)
            where, key = self.features, half
        elif at == 0x12:
            return 2
        elif at == 0x14:
            if value is not None:
                self.status.append(value)
            return self.status[-1]
        elif at >= 0x18:
            where, key = self.queues[select], at
        else:
            return None
        if value is not None:
            where[key] = value
        return where.get(key, 0)

    def do(self, words):
        verb, size, at = words[0][:-1], WIDTHS[words[0][-1]], int(words[1], 16)
        value = int(words[2], 16) if len(words) > 2 else None
        if verb in ("in", "out") and at & ~3 == 0xCFC:
            where, at = self.config, (self.address & 0xFF) + (at & 3)
            assert self.address & ~0xFF == BASE
        elif verb in ("in", "out"):
            if at == 0xCF8 and value is not None:
                self.address = value
            where = self.ports
        else:
            found = self.common(at - COMMON, value) if COMMON <= at < COMMON + 0x38 else None
            if found is not None:
                return f"OK {found:#x}"
            where = self.memory
        if value is None:
            return f"OK {self.get(where, at, size):#x}"
        self.put(where, at, size, value)
        return "OK"


class Direct(Panel):
    """A panel without a channel."""

    def __init__(self, machine, script=b""):
        self._machine, self._script = machine, script

    def run(self, script, timeout):
        """Let the machine do it."""
        del timeout
        return [self._machine.do(line.split()).encode() for line in script.decode().splitlines()]

    def close(self):
        """There is nothing to close."""


def test_what_the_driver_wrote_is_written_again():
    """A fresh device becomes what the recorded one was, by the driver's steps."""
    old, fresh = Machine().set_up(), Machine()
    Direct(fresh, record(Direct(old), SLOT)).replay(5)
    assert fresh.config == old.config
    assert fresh.features == old.features
    assert {n: {k: v for k, v in q.items() if v} for n, q in fresh.queues.items()} == QUEUES
    assert fresh.status == [0, 0, 3, 11, 15]
    table = range(TABLE, TABLE + 48)
    assert [fresh.memory[at] for at in table] == [old.memory[at] for at in table]


def test_a_device_that_was_used_is_not_carried_over():
    """The daemon behind the copy's device knows nothing of requests to the other one."""
    machine = Machine().set_up()
    machine.put(machine.memory, QUEUES[1][0x28] + 2, 2, 1)
    with pytest.raises(HypervisorError, match="was used"):
        record(Direct(machine), SLOT)


def test_a_device_without_a_driver_is_not_carried_over():
    """A guest whose driver did not come up would never have its share."""
    machine = Machine().set_up()
    machine.status = [3]
    with pytest.raises(HypervisorError, match="no driver"):
        record(Direct(machine), SLOT)


def test_a_gate_masks_one_event_and_forgets_it():
    """Only the event of plugging is masked, and cleared; the guest's own access can go on."""
    machine = Machine()
    machine.ports[0xAFE2] = 0x0F
    machine.put(machine.ports, 0xCF8, 4, 0x8000_1004)
    gate = Gate(Direct(machine))
    assert machine.ports[0xAFE2] == 0x0D
    machine.do(["outl", "0xcf8", hex(BASE)])
    gate.open()
    assert machine.get(machine.ports, 0xCF8, 4) == 0x8000_1004
    assert machine.ports[0xAFE0] == 2
    assert machine.ports[0xAFE2] == 0x0F


def test_a_refusal_is_an_error():
    """An answer that is not OK, and a channel that closes, are told."""
    ours, theirs = _socket.socketpair()
    panel = Panel(ours)
    theirs.sendall(b"FAIL Unknown command\n")
    with pytest.raises(HypervisorError, match="cannot be set"):
        panel.run(b"nonsense\n", 1)
    theirs.close()
    with pytest.raises(HypervisorError):
        panel.run(b"inl 0x0\n", 1)
    panel.close()
