"""``kata-runtime features``: what is supported, in the specification's words.

Source: runtime-spec features.md and features-linux.md, version 1.2.
"""

from __future__ import annotations

from kata.linux.mounts import known_options
from kata.oci.defaults import ALL_CAPABILITIES
from kata.oci.schema import ACTIONS, FLAGS, OPERATORS
from kata.oci.version import VERSION
from kata.runtime.hooks import HOST_KINDS
from kata.version import VERSION as PRODUCT
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options


def run(_options: Options) -> int:
    """Print it."""
    print(dumps(document(), indent=2))
    return 0


def document() -> dict[str, Any]:
    """Only what the guest and the host really do."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": [*HOST_KINDS[:3], "startContainer", *HOST_KINDS[3:]],
        "mountOptions": sorted(known_options()),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": list(ALL_CAPABILITIES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": False,
                "rdma": False,
            },
            "seccomp": {
                "enabled": True,
                "actions": [a for a in ACTIONS if a != "SCMP_ACT_NOTIFY"],
                "operators": list(OPERATORS),
                "archs": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
                "knownFlags": list(FLAGS),
                "supportedFlags": [
                    f for f in FLAGS if f != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
                ],
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"io.github.pykata.version": PRODUCT},
        "potentiallyUnsafeConfigAnnotations": [],
    }
