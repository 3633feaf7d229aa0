"""The suite can fail: runtimes that are broken on purpose fail just the cases they should.

Each is runc with one fault in front of it.
"""

import os
import re
import subprocess
import sys

import pytest

from support.host import need_root, need_tool
from support.source import CHECKOUT

FAULTS = {
    "drops --pid-file": (
        """
        while i < len(words):
            if words[i] == "--pid-file":
                del words[i:i + 2]
            i += 1
        """,
        "test_lifecycle.py", "created_status or delete_by_force_of_unknown",
        {"created_status"}, {"delete_by_force_of_unknown"},
    ),
    "forgets the umask": (
        """
        if "create" in words:
            path = words[words.index("--bundle") + 1] + "/config.json"
            spec = json.load(open(path))
            spec["process"]["user"].pop("umask", None)
            json.dump(spec, open(path, "w"))
        """,
        "test_process.py", "umask or user_and_group",
        {"umask", "umask_shapes_files"}, {"default_umask", "user_and_group"},
    ),
    "swallows codes": (
        """
        subprocess.run([RUNC, *words])
        sys.exit(0)
        """,
        "test_exec.py", "exec_code or exec_output",
        {"exec_code[1]", "exec_code[42]", "exec_code[255]"}, {"exec_output"},
    ),
    "kills nobody": (
        """
        if "kill" in words:
            sys.exit(0)
        """,
        "test_signals.py", "unknown_signal",
        {f"unknown_signal_is_refused[{n}]" for n in ("SIGNOPE", "nope", "99999")}, set(),
    ),
    "mounts all writable": (
        """
        if "create" in words:
            path = words[words.index("--bundle") + 1] + "/config.json"
            spec = json.load(open(path))
            for entry in spec["mounts"]:
                entry["options"] = [o for o in entry.get("options", []) if o != "ro"]
            json.dump(spec, open(path, "w"))
        """,
        "test_mounts.py", "bind_read_only or bind_reads or tmpfs_read_only or rbind",
        {"bind_read_only", "bind_read_only_keeps_files", "tmpfs_read_only"},
        {"bind_reads_and_writes", "rbind_takes_mounts_along"},
    ),
    "leaves its log empty": (
        """
        i = words.index("--log") if "--log" in words else 0
        if i:
            del words[i:i + 2]
        """,
        "test_errors.py", "logged_as_json or error_code",
        {f"errors_are_logged_as_json[{n}]" for n in ("create", "start", "exec")}, {"error_code"},
    ),
    "leaves containers behind": (
        """
        if "delete" in words:
            sys.exit(0)
        """,
        "test_process.py", "symlink_to_a_program", {"symlink_to_a_program"}, set(),
    ),
}  # fmt: skip
WRAPPER = """#!{python} -IS
import json, os, subprocess, sys
RUNC = "{runc}"
words = sys.argv[1:]
i = 0
{fault}
os.execv(RUNC, [RUNC, *words])
"""


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name, tmp_path):
    """A broken runtime fails the cases about what is broken, and no other."""
    need_root()
    fault, file, chosen, wrong, right = FAULTS[name]
    lines = fault.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    path = tmp_path / "runc"
    path.write_text(
        WRAPPER.format(
            python="/usr/bin/python3", runc=need_tool("runc"),
            fault="\n".join(line[indent:] for line in lines),
        ),
        encoding="utf-8",
    )  # fmt: skip
    path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider",
         f"{CHECKOUT}/tests/conformance/{file}", "-k", chosen],
        env=os.environ | {"RUNTIME": str(path)}, cwd=CHECKOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    found = dict.fromkeys(re.findall(r"^PASSED \S*::test_(\S+)", done.stdout, re.M), "passed")
    for case in re.findall(r"^(?:FAILED|ERROR) \S*::test_(\S+)", done.stdout, re.M):
        found[case] = "failed"
    assert {case for case, how in found.items() if how == "failed"} == wrong, done.stdout
    assert {case for case, how in found.items() if how == "passed"} == right, done.stdout
