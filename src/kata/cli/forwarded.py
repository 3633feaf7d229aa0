"""Which signals are passed on to a process in a container: one list for all who do that."""

from __future__ import annotations

import _signal

# what a shell or an operator sends to a command to influence it; the rest concerns only ourselves
FORWARDED = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1,
    _signal.SIGUSR2, _signal.SIGALRM, _signal.SIGCONT,
)  # fmt: skip
# of these, the ones that give up what has not begun
ENDING = frozenset((_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM))
