#!/usr/bin/env python3
"""The benchmark: start, exec and memory, against QEMU alone and against runc and crun; engines.

    run.py [--only PART[,PART]] [--samples N] [--quick] [--program KATA] [--data DIR] [--name NAME]

All arms of a kind are interleaved, in an order shuffled for each round, after warm-up. Prints a
table; writes bench/results/NAME.json and pictures beside it. Needs root, runc and crun; the part
"engines" also Podman, the part "containerd" containerd with its CNI plugins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(HERE)
sys.path[:0] = [HERE, f"{CHECKOUT}/src", f"{CHECKOUT}/tests"]

import arms  # noqa: E402
import containerds  # noqa: E402
import memory  # noqa: E402
import pools  # noqa: E402
import report  # noqa: E402
import runtimes  # noqa: E402

IMAGE = "bench"
WORDS = ["/bin/echo", "ready"]
WARM_UP = 3
PARTS = ("starts", "execs", "memory", "engines", "containerd", "pool")
UNIFIED, HIDDEN = "/sys/fs/cgroup/unified", "KATA_BENCH_HIDDEN"
APPLETS = ("echo", "sh", "sleep", "true")


def main() -> int:
    """Measure all, write all."""
    options = parse()
    if os.geteuid():
        sys.exit("the benchmark starts virtual machines: run it as root")
    if os.environ.get(HIDDEN) is None and os.path.exists(f"{UNIFIED}/cgroup.controllers"):
        hide_unified()
    with tempfile.TemporaryDirectory(prefix="kata-bench-") as scratch:
        os.mkdir(f"{scratch}/state")
        kata = arms.Kata(options.program, f"{scratch}/state", options.data)
        rootfs = make_rootfs(f"{scratch}/rootfs")
        template = prepare(kata, rootfs, scratch)
        result = measure(kata, rootfs, template, scratch, options)
    result["targets"] = report.reached(result)
    os.makedirs(f"{HERE}/results", exist_ok=True)
    path = f"{HERE}/results/{options.name}"
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(report.table(result))
    print(f"\n{path}.json", *report.pictures(result, path), sep="\n")
    return 0


def hide_unified() -> None:
    """Start again where version 2's groups are not seen beside version 1's: crun refuses both."""
    script = f'umount {UNIFIED} && exec "$@"'
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
    os.environ[HIDDEN] = "1"
    os.execvp(words[0], [*words, sys.executable, os.path.abspath(__file__), *sys.argv[1:]])


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20, help="of each arm, after warm-up")
    parser.add_argument("--quick", action="store_true", help="3 samples, to try it out")
    parser.add_argument("--program", default=f"{CHECKOUT}/bin/kata", help="the kata command")
    parser.add_argument(
        "--data", default=f"{CHECKOUT}/build/test-data", help="data root, kept between runs"
    )
    parser.add_argument("--name", default=time.strftime("%Y-%m-%d"), help="of the results' files")
    parser.add_argument(
        "--only", default=",".join(PARTS), help=f"the parts to run, of {', '.join(PARTS)}"
    )
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.quick:
        options.samples = 3
    return options


def make_rootfs(path: str) -> str:
    """A root file system of busybox, for all arms."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        os.makedirs(f"{path}/{name}")
    subprocess.run(["cp", "/bin/busybox", f"{path}/bin/busybox"], check=True)
    for applet in APPLETS:
        os.symlink("busybox", f"{path}/bin/{applet}")
    with open(f"{path}/etc/passwd", "w", encoding="utf-8") as file:
        file.write("root:x:0:0:root:/:/bin/sh\n")
    return path


def prepare(kata: arms.Kata, rootfs: str, scratch: str) -> str:
    """Guest image, container image and template; the template's directory."""
    say("guest image, image and template")
    kata("guest", "build")
    kata("image", "import", rootfs, IMAGE)
    kata("run", "--rm", IMAGE, *WORDS)
    with arms.running(kata, IMAGE, 1) as [name]:
        key = find(kata.inspect(name), "template")
    write_question(f"{scratch}/question")
    return f"{kata.data}/templates/{key}"


def find(value: object, key: str) -> str:
    """The first text called ``key`` in nested JSON."""
    if isinstance(value, dict):
        if isinstance(value.get(key), str) and value[key]:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for item in value if (found := find(item, key))), "")
    return ""


def write_question(path: str) -> None:
    """The bytes of a Configure call, as the product sends it first."""
    from kata.wire import agent_api, ttrpc

    request = agent_api.ConfigureRequest(
        api_hash=agent_api.api_hash(), realtime_ns=time.time_ns(), entropy=os.urandom(64),
        hostname="bench", machine_id=os.urandom(16).hex(), sandbox_id="bench",
    )  # fmt: skip
    with open(path, "wb") as file:
        connection = ttrpc.Connection()
        file.write(connection.request(agent_api.SERVICE, "Configure", request.encode())[1])


def measure(
    kata: arms.Kata, rootfs: str, template: str, scratch: str, options: argparse.Namespace
) -> dict:
    """All figures of the parts that are wanted."""
    raw = [arms.PYTHON, "-I", f"{HERE}/raw.py", template, f"{scratch}/question"]
    bundles = arms.Bundles(rootfs, scratch)
    asleep = bundles.make("asleep", runtimes.SLEEP)
    load = [os.getloadavg()[0]]
    every: list[arms.Arm] = []
    if "starts" in options.only:
        every += starts(kata, rootfs, raw, bundles.make("once", WORDS))
        interleave(every, options.samples)
    if "execs" in options.only:
        every += execs(kata, asleep, options.samples)
    if "engines" in options.only:
        every += runtimes.measure(options, asleep, rootfs, scratch, interleave)
    shim: dict[str, object] = {}
    if "containerd" in options.only:
        more, shim = containerds.measure(options, asleep, scratch, interleave)
        every += more
    member: dict[str, object] = {}
    if "pool" in options.only:
        more, member = pools.measure(options, kata, IMAGE, rootfs, interleave)
        every += more
    load.append(os.getloadavg()[0])
    sizes_found = sizes(kata, raw, rootfs) if "memory" in options.only else {}
    return {
        "machine": machine(options.program, template, load),
        "times": {arm.name: moments(arm) for arm in every},
        "phases": {arm.name: phases(arm) for arm in every if isinstance(arm, arms.Phased)},
        "memory": sizes_found | ({"shim, 1": shim} if shim else {})
        | ({"shim of the pool, 1": member} if member else {}),
        "samples": {arm.name: arm.samples for arm in every},
        "meaning": {arm.name: arm.meaning for arm in every},
    }


def starts(kata: arms.Kata, rootfs: str, raw: list[str], once: str) -> list[arms.Arm]:
    """The ways to start a process."""
    run = [*kata.words, "run", "--rm"]
    timing = ["--timing", "--format", "json"]
    return [
        arms.Raw("B0", "QEMU alone boots kernel and image to the agent's first byte",
                 [*raw, "boot"]),
        arms.Raw("B1", "QEMU alone restores the template to the agent's first answer", raw),
        arms.Arm("cold", "kata run --no-template", [*run, "--no-template", IMAGE, *WORDS]),
        arms.Arm("template", "kata run", [*run, IMAGE, *WORDS]),
        arms.Arm("template, shared root", "kata run --rootfs",
                 [*run, "--rootfs", rootfs, "--", *WORDS]),
        arms.Phased("cold, timed", "kata run --no-template --timing",
                    [*run, *timing, "--no-template", IMAGE, *WORDS]),
        arms.Phased("template, timed", "kata run --timing", [*run, *timing, IMAGE, *WORDS]),
        arms.Arm("runc run", "runc run", ["runc", "run", "-b", once, "bench-once"]),
        arms.Arm("crun run", "crun run", ["crun", "run", "-b", once, "bench-once"]),
    ]  # fmt: skip


def execs(kata: arms.Kata, asleep: str, count: int) -> list[arms.Arm]:
    """One more process in a container that runs, measured."""
    found = [
        arms.Arm("kata exec", "kata exec", [*kata.words, "exec", "bench-0", *WORDS]),
        arms.Arm("runc exec", "runc exec", ["runc", "exec", "bench-asleep", *WORDS]),
        arms.Arm("crun exec", "crun exec", ["crun", "exec", "bench-asleep-c", *WORDS]),
    ]
    with (
        arms.running(kata, IMAGE, 1),
        arms.native("runc", asleep, "bench-asleep"),
        arms.native("crun", asleep, "bench-asleep-c"),
    ):
        interleave(found, count)
    return found


def interleave(every: list[arms.Arm], count: int) -> None:
    """``count`` samples of each after warm-up, one of each in every round."""
    shuffler = random.Random(1)
    order = list(every)
    for number in range(WARM_UP + count):
        say(f"round {number + 1} of {WARM_UP + count}")
        shuffler.shuffle(order)
        for arm in order:
            arm.sample()
    for arm in every:
        del arm.samples[:WARM_UP]
        if isinstance(arm, arms.Phased):
            del arm.phases[:WARM_UP]


def moments(arm: arms.Arm) -> dict[str, dict[str, float]]:
    """The figures of each moment of an arm."""
    return {name: report.summary([s[name] for s in arm.samples]) for name in arm.samples[0]}


def phases(arm: arms.Phased) -> list[tuple[str, float]]:
    """The mean of each phase, in order: means of parts sum to the mean of the whole."""
    names = [name for name, _ in arm.phases[0]]
    rows = [dict(sample) for sample in arm.phases]
    return [(n, round(statistics.fmean(row.get(n, 0.0) for row in rows), 2)) for n in names]


def sizes(kata: arms.Kata, raw: list[str], rootfs: str) -> dict[str, object]:
    """Memory of one and of ten, ours and QEMU's alone."""
    say("memory")
    found: dict[str, object] = {}
    for count in (1, 10):
        found[f"ours, {count}"] = memory.sandboxes(kata, IMAGE, count)
        found[f"raw restore, {count}"] = memory.raw(raw, count)
    found["ours with a volume, 1"] = memory.sandboxes(kata, IMAGE, 1, "-v", f"{rootfs}:/mnt:ro")
    found["raw boot, 1"] = memory.raw([*raw, "boot"], 1)
    return found


def machine(program: str, template: str, load: list[float]) -> dict[str, object]:
    """Where it was measured, and of what."""
    with open(f"{template}/manifest.json", encoding="utf-8") as file:
        made = json.load(file)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((x.partition(":")[2].strip() for x in file if x.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "-C", os.path.dirname(program), "describe", "--always", "--dirty"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    ).stdout.strip() or "installed"  # fmt: skip
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit,
        "cpu": model,
        "cpus": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "host_kernel": platform.release(),
        "accelerator": made["machine"]["accelerator"],
        "guest": f"{made['machine']['memory_mib']} MiB, {made['machine']['vcpus']} vCPU",
        "template_MB": round(os.stat(f"{template}/memory").st_blocks * 512 / 1e6),
        "qemu": first_line(made["program"]["path"], "--version"),
        "runc": first_line("runc", "--version"),
        "crun": first_line("crun", "--version"),
        "load_before_after": [round(x, 2) for x in load],
    }


def first_line(*command: str) -> str:
    """What a program says first."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.split("\n")[0]


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
