"""kata-runtime ps: the table of a guest's processes, with the columns that ps(1)'s words choose."""

import pytest

from kata.cli.runtime.ps import columns, table
from kata.errors import InvalidInput, Unsupported
from kata.wire.agent_api import ProcessInfo

NOW = 1_700_000_000 * 10**9
ROWS = [
    ProcessInfo(pid=7, parent=0, uid=0, state="sleeping", command="/bin/sleep 1000"),
    ProcessInfo(
        pid=1234, parent=7, uid=1000, state="running", command="sh", cpu_ns=3_661_000_000_000,
        rss_bytes=5 << 20, started_at_ns=NOW - 90_061 * 10**9,
    ),
]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["-ef"], ["-e", "-f"], ["--", "ax"]])
def test_the_usual_table(words):
    """Nothing, and words that only ask for all, give the usual columns."""
    assert table(ROWS, columns(words), NOW) == [
        "UID   PID PPID CMD",
        "0       7    0 /bin/sleep 1000",
        "1000 1234    7 sh",
    ]


@pytest.mark.parametrize(
    "words", [["-o", "pid,comm"], ["-opid,comm"], ["-eo", "pid comm"], ["-o", "pid", "-o", "comm"]]
)
def test_chosen_columns(words):
    """-o has its columns, in its order."""
    assert table(ROWS, columns(words), NOW) == [" PID COMMAND", "   7 sleep", "1234 sh"]


def test_every_column():
    """Times, sizes and states are written as ps(1) writes them; a heading may be given."""
    wanted = columns(["-o", "stat,s,rss,time,etime,user,args,ppid=PARENT"])
    assert table(ROWS[1:], wanted, NOW) == [
        "STAT S  RSS     TIME    ELAPSED USER COMMAND PARENT",
        "R    R 5120 01:01:01 1-01:01:01 1000 sh           7",
    ]


def test_without_processes():
    """A container that has ended has a heading."""
    assert table([], columns([]), NOW) == ["UID PID PPID CMD"]


@pytest.mark.parametrize("words", [["-Z"], ["--sort=pid"], ["-o", "pid,wchan"], ["-p", "1"]])
def test_what_is_not_known_is_refused(words):
    """What would be passed over in silence is refused, with what there is."""
    with pytest.raises(Unsupported) as caught:
        columns(words)
    assert "pid" in caught.value.hint


def test_a_list_that_is_missing():
    """-o without columns is an error."""
    with pytest.raises(InvalidInput, match="needs a list"):
        columns(["-o"])
