"""Seccomp programs, run as the kernel runs them, and the default filter."""

import os
from struct import iter_unpack, pack

import kata.oci
from kata.oci.defaults import DEFAULT_CAPABILITIES
from kata.oci.seccomp_profile import parse, resolved

X86_64, I386 = 0xC000003E, 0x40000003


def run(program, number, *arguments, arch=X86_64):
    """What a seccomp program answers to a system call (classic BPF, as the kernel runs it)."""
    padded = [a & (1 << 64) - 1 for a in (*arguments, *[0] * 6)][:6]
    data = pack("=IIQ6Q", number, arch, 0, *padded)
    code = list(iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[constant : constant + 4], "little")
        elif operation == 0x06:
            return constant
        elif operation == 0x05:
            at += constant
        elif operation == 0x54:
            accumulator &= constant
        else:
            compare = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }
            at += yes if compare[operation] else no


def default(capabilities=DEFAULT_CAPABILITIES):
    """OCI's ``linux.seccomp`` of the default profile."""
    path = os.path.join(os.path.dirname(kata.oci.__file__), "seccomp_default.json")
    with open(path) as file:
        return resolved(parse(file.read(), path), capabilities, kernel=(6, 1))
