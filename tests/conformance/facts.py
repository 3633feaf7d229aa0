"""Reading the kernel's tables that the probe passes on."""

from __future__ import annotations


def status(facts) -> dict[str, str]:
    """/proc/PID/status by name."""
    rows = (line.partition(":") for line in facts.status.splitlines())
    return {name: value.strip() for name, _, value in rows}


def limits(facts) -> dict[str, tuple[str, str]]:
    """/proc/PID/limits: soft and hard by name."""
    found = {}
    for line in facts.limits.splitlines()[1:]:
        found[line[:26].strip()] = (line[26:47].strip(), line[47:68].strip())
    return found


def mounts(facts) -> list[dict]:
    """/proc/PID/mountinfo: the mounts, in order."""
    found = []
    for line in facts.mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        words, after = fields.split(), rest.split()
        found.append({
            "id": words[0], "parent": words[1], "root": words[3],
            "point": words[4].replace("\\040", " "),
            "options": words[5].split(","), "optional": words[6:],
            "type": after[0], "super": after[2].split(",") if len(after) > 2 else [],
        })  # fmt: skip
    return found


def mount(facts, point: str) -> dict:
    """The uppermost mount at a point."""
    found = [entry for entry in mounts(facts) if entry["point"] == point]
    assert found, f"nothing is mounted at {point}:\n{facts.mountinfo}"
    return found[-1]


def capabilities(facts, kind: str) -> set[int]:
    """The numbers in one of the sets: CapInh, CapPrm, CapEff, CapBnd, CapAmb."""
    bits = int(status(facts)[kind], 16)
    return {number for number in range(64) if bits >> number & 1}
