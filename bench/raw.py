#!/usr/bin/python3
"""Restore a template with QEMU alone, or boot its kernel; time it to the agent's first answer.

    raw.py TEMPLATE QUESTION [boot] [hold]

TEMPLATE is a template's directory, whose manifest holds QEMU's words; QUESTION a file with the
bytes that the agent is asked. Prints one line of JSON with the milliseconds; ``hold`` then keeps
the guest, idle, until standard input ends. Nothing of the product is used, and nothing is confined.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time

where, question = sys.argv[1], open(sys.argv[2], "rb").read()
boot, hold = "boot" in sys.argv[3:], "hold" in sys.argv[3:]
manifest = json.load(open(f"{where}/manifest.json"))
words = [word.replace("mem-path=/memory", f"mem-path={where}/memory")
         for word in manifest["arguments"] if word != "-S"]  # fmt: skip
if boot:
    at = words.index("-incoming")
    words[at : at + 2] = ["-kernel", manifest["kernel"], "-initrd", manifest["initrd"],
                          "-append", manifest["machine"]["command_line"]]  # fmt: skip
    memory = next(i for i, word in enumerate(words) if word.startswith("memory-backend-file"))
    words[memory] = f"memory-backend-ram,id=memory,size={manifest['machine']['memory_mib']}M"
else:
    words.append("-S")
pairs = [socket.socketpair() for _ in range(3)]
(agent, _), (_, _), (monitor, _) = pairs
theirs = [fcntl.fcntl(pair[1], fcntl.F_DUPFD, 50) for pair in pairs]  # agent 3, console 4, QMP 5
theirs.append(fcntl.fcntl(os.open(f"{where}/state", os.O_RDONLY), fcntl.F_DUPFD, 50))
ours = [socket.socket(fileno=fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 50)) for s in (agent, monitor)]
[pair_end.detach() for pair in pairs for pair_end in pair]
for number, fd in zip((3, 4, 5, 6), theirs, strict=True):
    os.dup2(fd, number)
agent, monitor = ours
capabilities = [{"capability": c, "state": True} for c in ("x-ignore-shared", "events")]
first = [("qmp_capabilities", {})]
if not boot:
    first += [("migrate-set-capabilities", {"capabilities": capabilities}),
              ("migrate-incoming", {"uri": "fd:6"})]  # fmt: skip
begin = time.perf_counter()
program = [manifest["program"]["path"], *words]
qemu = subprocess.Popen(program, pass_fds=(3, 4, 5, 6), stdin=subprocess.DEVNULL)
for name, arguments in first:
    monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
agent.sendall(question)
seen = monitor.recv(65536)
marks = {"monitor": time.perf_counter()}
if not boot:
    while b'"completed"' not in seen:
        seen += monitor.recv(65536) or sys.exit(f"QEMU ended: {qemu.wait()}")
    marks["state"] = time.perf_counter()
    monitor.sendall(b'{"execute": "cont"}')
assert agent.recv(65536), "the agent's channel closed"
marks["answer"] = time.perf_counter()
print(json.dumps({n: round((t - begin) * 1e3, 3) for n, t in marks.items()} | {"pid": qemu.pid}))
if hold:
    sys.stdout.flush()
    sys.stdin.read()
qemu.kill()
qemu.wait()
