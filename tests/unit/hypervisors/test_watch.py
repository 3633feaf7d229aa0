"""What is kept of a VMM's words, and how its end is told."""

from hypothesis import given
from hypothesis import strategies as st

from kata.hypervisors.qemu.watch import Tail, _reason


@given(st.lists(st.binary(max_size=100)), st.integers(1, 50))
def test_a_tail_is_the_end_and_bounded(parts, most):
    """However much is written, the last bytes are kept and no more."""
    tail = Tail(most)
    for part in parts:
        tail.add(part)
    whole = b"".join(parts)
    assert tail.text() == whole[-most:].decode(errors="replace").replace("\r\n", "\n")


def test_the_end_of_a_vmm_is_told_in_words():
    """A kill, a guest's own end and an error of QEMU are told apart; warnings are no reason."""
    assert _reason(-9, "", "") == "QEMU was killed by signal 9"
    assert _reason(0, "guest-reset", "") == "the guest crashed, or restarted itself"
    errors = "qemu: -device foo: 'foo' is not a valid device model name\nqemu: warning: late\n"
    assert _reason(1, "", errors) == (
        "QEMU ended with status 1: qemu: -device foo: 'foo' is not a valid device model name"
    )
