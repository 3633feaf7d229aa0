"""Where a runtime gives another answer than a case expects, and why: case id to reason.

The one rule: a case named here must fail; when it passes, the line is out of date and the suite
fails. A case's id is its file and its name without "test_": "mounts.slave_propagation".
"""

# this project's runtime: what a virtual machine cannot have
KATA: dict[str, str] = {}

# the references, which prove the suite: what they do otherwise by design or by a fault of theirs
RUNC: dict[str, str] = {}
CRUN: dict[str, str] = {
    "streams.socket_needs_a_terminal": "a console socket without a terminal is ignored",
}

TABLES = {"kata": KATA, "runc": RUNC, "crun": CRUN}

# what a reference says in other words than runc's
WORDING: dict[str, dict[str, tuple[str, ...]]] = {
    "crun": {
        "does not exist": ("No such file or directory",),
        "not stopped": ("is not in `created` or `stopped` state",),
    }
}
