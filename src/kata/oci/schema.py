"""The table of config.json: every Linux field of the runtime specification 1.2 and its kind.

The one rule: shape only. What fields mean together is ``spec``'s; unknown fields are kept.
Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md, config-linux.md and
config-vm.md. Where runc takes more than the schema says (propagation with a leading "r", file
modes with type bits, filters and rules that say nothing, versions that are none, annotations
without a key, relative paths of devices, letters that are no access), so does this table.
"""

from __future__ import annotations

from kata.oci.kinds import (
    absolute,
    anything,
    array,
    at_most,
    boolean,
    filled,
    int32,
    int64,
    integer,
    mapping,
    matching,
    one_of,
    string,
    strings,
    table,
    uint16,
    uint32,
    uint64,
    user_id,
)

ARCHITECTURES = (
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
)  # fmt: skip
ACTIONS = (
    "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
)  # fmt: skip
OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)  # fmt: skip
FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)  # fmt: skip
NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
_PROPAGATION = ("private", "shared", "slave", "unbindable")


RLIMITS = (  # asm-generic/resource.h
    "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS",
    "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
)  # fmt: skip
_LONGEST_NAME = 64  # of a host and of a domain, uts_namespaces(7)
_MOST_PROCESSOR = 8191  # the most that a kernel is built for


def processors(text: str) -> bool:
    """Whether a text is a list of processors such as ``0-3,7`` (cpuset(7))."""
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(n.isascii() and n.isdecimal() and int(n) <= _MOST_PROCESSOR for n in numbers):
            return False
        if int(numbers[0]) > int(numbers[-1]):
            return False
    return True


def _page_size(text: str) -> bool:
    digits = text[:-2]
    return text[-2:] in ("KB", "MB", "GB") and digits.isdecimal() and not digits.startswith("0")


_id_mapping = table(
    {"containerID": uint32, "hostID": uint32, "size": uint32}, "containerID", "hostID", "size"
)
_id_mappings = array(_id_mapping)
_hook = table(
    {"path": filled, "args": strings, "env": strings, "timeout": integer(1, (1 << 31) - 1)},
    "path",
)
_hooks = array(_hook)
_mount = table(
    {
        "source": string, "destination": filled, "type": string, "options": strings,
        "uidMappings": _id_mappings, "gidMappings": _id_mappings,
    },
    "destination",
)  # fmt: skip

_user = table({
    "uid": user_id, "gid": user_id, "umask": uint32, "additionalGids": array(user_id),
    "username": string,
})  # fmt: skip
_capabilities = table(
    dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), strings)
)
_rlimit = table(
    {
        "type": matching(
            "the name of a resource limit (wrong rlimit value)", lambda t: t in RLIMITS
        ),
        "soft": uint64, "hard": uint64,
    },
    "type", "soft", "hard",
)  # fmt: skip
_scheduler = table(
    {
        "policy": one_of(
            "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE",
            "SCHED_DEADLINE",
        ),
        "nice": int32, "priority": int32, "runtime": uint64, "deadline": uint64, "period": uint64,
        "flags": array(one_of(
            "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        )),
    },
    "policy",
)  # fmt: skip
_io_priority = table(
    {
        "class": one_of("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
        "priority": integer(0, 7),
    },
    "class",
)
_processors = matching(
    "a list of processors such as 0-3,7", lambda t: not t or processors(t)
)
PROCESS = table(
    {
        "args": strings, "commandLine": string, "cwd": absolute, "env": strings,
        "terminal": boolean, "user": _user, "capabilities": _capabilities,
        "consoleSize": table({"height": uint64, "width": uint64}),
        "apparmorProfile": string, "selinuxLabel": string, "noNewPrivileges": boolean,
        "oomScoreAdj": integer(-1000, 1000), "rlimits": array(_rlimit),
        "scheduler": _scheduler, "ioPriority": _io_priority,
        "execCPUAffinity": table({"initial": _processors, "final": _processors}),
    },
    "cwd",
)  # fmt: skip

_MAJORS, _MINORS = (1 << 12) - 1, (1 << 20) - 1  # what the kernel keeps of a device's numbers
_device = table(
    {
        "type": one_of("c", "b", "u", "p"), "path": filled, "fileMode": uint32,
        "major": integer(0, _MAJORS), "minor": integer(0, _MINORS), "uid": uint32, "gid": uint32,
    },
    "type", "path",
)  # fmt: skip
_device_rule = table(
    {
        "allow": boolean, "type": one_of("", "a", "b", "c"),
        "major": integer(-1, (1 << 32) - 1), "minor": integer(-1, (1 << 32) - 1),
        "access": string,
    },
    "allow",
)  # fmt: skip
_numbers = {"major": int64, "minor": int64}
_throttles = array(table({**_numbers, "rate": uint64}, "major", "minor"))
_weights = array(table({**_numbers, "weight": uint16, "leafWeight": uint16}, "major", "minor"))
_bytes = integer(-1, (1 << 63) - 1)  # -1: no limit
RESOURCES = table({
    "unified": mapping(string),
    "devices": array(_device_rule),
    "pids": table({"limit": int64}),
    "memory": table({
        "limit": _bytes, "reservation": _bytes, "swap": _bytes, "kernel": int64, "kernelTCP": int64,
        "swappiness": uint64, "disableOOMKiller": boolean, "useHierarchy": boolean,
        "checkBeforeUpdate": boolean,
    }),
    "cpu": table({
        "shares": uint64, "quota": int64, "burst": uint64, "period": uint64,
        "realtimeRuntime": int64, "realtimePeriod": uint64, "cpus": string, "mems": string,
        "idle": integer(0, 1),
    }),
    "blockIO": table({
        "weight": uint16, "leafWeight": uint16, "weightDevice": _weights,
        "throttleReadBpsDevice": _throttles, "throttleWriteBpsDevice": _throttles,
        "throttleReadIOPSDevice": _throttles, "throttleWriteIOPSDevice": _throttles,
    }),
    "hugepageLimits": array(table(
        {"pageSize": matching("a page size such as 2MB", _page_size), "limit": uint64},
        "pageSize", "limit",
    )),
    "network": table({
        "classID": uint32,
        "priorities": array(table({"name": string, "priority": uint32}, "name", "priority")),
    }),
    "rdma": mapping(table({"hcaHandles": uint32, "hcaObjects": uint32})),
})  # fmt: skip

_syscall = table(
    {
        "names": array(filled), "action": one_of(*ACTIONS), "errnoRet": uint32,
        "args": array(table(
            {
                "index": integer(0, 5), "value": uint64, "valueTwo": uint64,
                "op": one_of(*OPERATORS),
            },
            "index", "value", "op",
        )),
    },
    "action",
)  # fmt: skip
SECCOMP = table(
    {
        "defaultAction": one_of(*ACTIONS), "defaultErrnoRet": uint32,
        "flags": array(one_of(*FLAGS)), "listenerPath": string, "listenerMetadata": string,
        "architectures": array(one_of(*ARCHITECTURES)), "syscalls": array(_syscall),
    }
)  # fmt: skip

_offset = table({"secs": int64, "nanosecs": uint32})
LINUX = table({
    "namespaces": array(table({"type": one_of(*NAMESPACES), "path": string}, "type")),
    "uidMappings": _id_mappings, "gidMappings": _id_mappings,
    "devices": array(_device), "cgroupsPath": string, "resources": RESOURCES,
    "rootfsPropagation": one_of("", *_PROPAGATION, *(f"r{p}" for p in _PROPAGATION)),
    "seccomp": SECCOMP, "sysctl": mapping(string),
    "maskedPaths": strings, "readonlyPaths": strings, "mountLabel": string,
    "intelRdt": table({
        "closID": string, "l3CacheSchema": string, "enableCMT": boolean, "enableMBM": boolean,
        "memBwSchema": matching(
            'one line that begins with "MB:"', lambda t: t.startswith("MB:") and "\n" not in t
        ),
    }),
    "personality": table({"domain": one_of("LINUX", "LINUX32"), "flags": strings}),
    "timeOffsets": table({"boottime": _offset, "monotonic": _offset}),
})  # fmt: skip

_vm = table(
    {
        "hypervisor": table({"path": absolute, "parameters": strings}, "path"),
        "kernel": table({"path": absolute, "parameters": strings, "initrd": absolute}, "path"),
        "image": table(
            {"path": absolute, "format": one_of("raw", "qcow2", "vdi", "vmdk", "vhd")},
            "path", "format",
        ),
    },
    "kernel",
)  # fmt: skip
CONFIG = table(
    {
        "ociVersion": string,
        "root": table({"path": filled, "readonly": boolean}, "path"),
        "mounts": array(_mount),
        "process": PROCESS,
        "hostname": at_most(_LONGEST_NAME),
        "domainname": at_most(_LONGEST_NAME),
        "hooks": table(dict.fromkeys(
            (
                "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
                "poststop",
            ),
            _hooks,
        )),
        "annotations": mapping(string),
        "linux": LINUX,
        "vm": _vm,
        "solaris": anything, "windows": anything, "zos": anything,
    }
)  # fmt: skip
