"""Figures out of samples: a table for people, JSON to keep, a picture of the phases."""

from __future__ import annotations

import math
import statistics

# (what, the ratio's or the figure's limit, its unit); a ratio: arm, moment, other arm, moment
TARGETS = (
    ("template start to first output / B1", 2.5, "x"),
    ("cold start to first output / B0", 1.3, "x"),
    ("kata exec / runc exec", 3.0, "x"),
    ("private memory of the supervisor", 8.0, "MiB"),
    ("phases against the total", 5.0, "%"),
    ("kata-runtime state / runc state", 2.0, "x"),
    ("kata-runtime kill / runc kill", 2.0, "x"),
    ("kata-runtime delete / runc delete", 2.0, "x"),
    ("kata-runtime exec / runc exec", 3.0, "x"),
    ("podman run with kata / with runc", 2.5, "x"),
    ("ctr run with kata / with runc", 3.0, "x"),
    ("shim start to its address", 60.0, "ms"),
    ("ten ctr runs at once / one", 4.0, "x"),
    ("private memory of a shim", 9.0, "MiB"),
    ("podman run from the pool / with runc", 2.5, "x"),
    ("ctr run from the pool / with runc", 3.0, "x"),
    ("ten ctr runs at once from the pool / one", 4.0, "x"),
    ("private memory of a shim of the pool", 6.0, "MiB"),
    ("kata run from the pool to first output / from a template", 0.6, "x"),
)
ENGINES = ("kata-runtime", "runc", "crun")
PODMAN = ("podman, kata", "podman, runc", "podman, crun")


def summary(values: list[float]) -> dict[str, float]:
    """What describes samples: median, and how far they spread."""
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "min": round(ordered[0], 2),
        "p10": round(quantile(ordered, 0.1), 2),
        "median": round(statistics.median(ordered), 2),
        "p90": round(quantile(ordered, 0.9), 2),
        "max": round(ordered[-1], 2),
    }


def quantile(ordered: list[float], share: float) -> float:
    """By linear interpolation."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def reached(result: dict) -> list[dict[str, object]]:
    """The targets with what was measured, of the parts that were run."""
    times, memory = result["times"], result["memory"]

    def ratio(arm: str, moment: str, base: str, base_moment: str = "") -> float | None:
        if arm not in times or base not in times:
            return None
        other = times[base][base_moment or moment]["median"]
        return times[arm][moment]["median"] / other

    def private(name: str) -> float | None:
        return memory[name]["sandbox"]["Private"] if name in memory else None

    off = None
    if "template, timed" in times:
        phased = times["template, timed"]
        off = abs(phased["sum"]["median"] / phased["exit"]["median"] - 1) * 100
    values = (
        ratio("template", "output", "B1", "answer"),
        ratio("cold", "output", "B0", "answer"),
        ratio("kata exec", "exit", "runc exec"),
        memory["ours, 1"]["processes"]["supervisor"]["Private"] if "ours, 1" in memory else None,
        off,
        *(ratio("kata-runtime", verb, "runc") for verb in ("state", "kill", "delete", "exec")),
        ratio("podman, kata", "exit", "podman, runc"),
        ratio("ctr run, kata", "exit", "ctr run, runc"),
        times["shim start, kata"]["address"]["median"] if "shim start, kata" in times else None,
        ratio("ctr run, kata, 10 at once", "exit", "ctr run, kata"),
        private("shim, 1"),
        ratio("pool: podman, kata", "exit", "pool: podman, runc"),
        ratio("pool: ctr run, kata", "exit", "pool: ctr run, runc"),
        ratio("pool: ctr run, kata, 10 at once", "exit", "pool: ctr run, kata"),
        private("shim of the pool, 1"),
        ratio("pool: kata run", "output", "pool: kata run, template"),
    )
    return [
        {"what": what, "limit": limit, "unit": unit, "value": round(value, 2), "ok": value <= limit}
        for (what, limit, unit), value in zip(TARGETS, values, strict=True)
        if value is not None
    ]


def table(result: dict) -> str:
    """All figures as text."""
    lines = [f"{'':<28}{'':<10}{'median':>10}{'p10':>10}{'p90':>10}{'min':>10}{'n':>5}   ms"]
    for arm, moments in result["times"].items():
        for moment, s in moments.items():
            lines.append(
                f"{arm:<28}{moment:<10}{s['median']:>10.1f}{s['p10']:>10.1f}{s['p90']:>10.1f}"
                f"{s['min']:>10.1f}{s['n']:>5}"
            )
    lines += _verbs(result["times"])
    if result["memory"]:
        lines += ["", f"{'':<28}{'Pss':>10}{'private':>10}{'Rss':>10}   MiB for each sandbox"]
    for name, entry in result["memory"].items():
        lines.append(_sizes(name, entry["sandbox"]))
        for role, sizes in entry.get("processes", {}).items():
            lines.append(_sizes(f"  {role}", sizes))
    lines.append("")
    for target in result["targets"]:
        sign = "ok    " if target["ok"] else "MISSED"
        lines.append(
            f"{sign} {target['what']:<40}{target['value']:>8.2f} {target['unit']}"
            f"   (at most {target['limit']:g})"
        )
    lines += ["", "  ".join(f"{key}: {value}" for key, value in result["machine"].items())]
    return "\n".join(lines)


def _verbs(times: dict) -> list[str]:
    """The verbs of the runtimes side by side, with ratios."""
    rows = []
    if ENGINES[0] in times:
        rows += [(verb, ENGINES, verb) for verb in times[ENGINES[0]]]
    if PODMAN[0] in times:
        rows.append(("podman run", PODMAN, "exit"))
    if not rows:
        return []
    head = "".join(f"{name:>14}" for name in (*ENGINES, "to runc", "to crun"))
    lines = ["", f"{'':<14}{head}   medians, ms"]
    for title, arms, moment in rows:
        found = [times[arm][moment]["median"] for arm in arms]
        cells = "".join(f"{value:>14.1f}" for value in found)
        ratios = "".join(f"{found[0] / value:>14.2f}" for value in found[1:])
        lines.append(f"{title:<14}{cells}{ratios}")
    return lines


def _sizes(name: str, sizes: dict[str, float]) -> str:
    return f"{name:<28}{sizes['Pss']:>10.1f}{sizes['Private']:>10.1f}{sizes['Rss']:>10.1f}"


def pictures(result: dict, path: str) -> list[str]:
    """Draw what there is; the paths."""
    made = []
    if result["phases"] and "kata exec" in result["times"]:
        picture(result, f"{path}.png")
        made.append(f"{path}.png")
    if ENGINES[0] in result["times"]:
        engines_picture(result["times"], f"{path}-engines.png")
        made.append(f"{path}-engines.png")
    return made


def engines_picture(times: dict, path: str) -> None:
    """Every verb of each runtime, medians with the range from p10 to p90, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(verb, ENGINES, verb) for verb in times[ENGINES[0]]]
    if PODMAN[0] in times:
        rows.append(("podman run", PODMAN, "exit"))
    figure, axis = plt.subplots(figsize=(11, 6), layout="constrained")
    height = 0.8 / len(ENGINES)
    for number, runtime in enumerate(ENGINES):
        found = [times[arms[number]][moment] for _, arms, moment in rows]
        medians = [s["median"] for s in found]
        spread = [
            [s["median"] - s["p10"] for s in found], [s["p90"] - s["median"] for s in found]
        ]  # fmt: skip
        at = [row + (number - 1) * height for row in range(len(rows))]
        axis.barh(at, medians, height, xerr=spread, label=runtime, error_kw={"lw": 0.6})
        for y, value in zip(at, medians, strict=True):
            axis.text(value, y, f"  {value:.0f}", va="center", fontsize=7)
    axis.set_yticks(range(len(rows)), [title for title, _, _ in rows])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("ms (median, p10 to p90)")
    axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bars(result: dict) -> dict[str, list[tuple[str, float]]]:
    """For each bar its parts, in order: (name, milliseconds)."""
    times, phases = result["times"], result["phases"]

    def between(arm: str, *moments: tuple[str, str]) -> list[tuple[str, float]]:
        parts, last = [], 0.0
        for moment, label in moments:
            value = times[arm][moment]["median"]
            parts.append((label, value - last))
            last = value
        return parts

    return {
        "B1: raw restore": between(
            "B1", ("monitor", "monitor: start"), ("state", "monitor: restore"), ("answer", "agent")
        ),
        "kata run, template": list(map(tuple, phases["template, timed"])),
        "crun run": between("crun run", ("output", "to first output"), ("exit", "to exit")),
        "runc run": between("runc run", ("output", "to first output"), ("exit", "to exit")),
        "kata exec": between("kata exec", ("output", "to first output"), ("exit", "to exit")),
        "runc exec": between("runc exec", ("output", "to first output"), ("exit", "to exit")),
        "B0: raw boot": between("B0", ("monitor", "monitor: start"), ("answer", "agent")),
        "kata run, cold": list(map(tuple, phases["cold, timed"])),
    }


COLD = ("B0: raw boot", "kata run, cold")


def picture(result: dict, path: str) -> None:
    """Stacked bars, warm and cold apart, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    every = bars(result)
    names = list(dict.fromkeys(part for parts in every.values() for part, _ in parts))
    palette = plt.get_cmap("tab20").colors
    colours = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    warm = {name: parts for name, parts in every.items() if name not in COLD}
    cold = {name: parts for name, parts in every.items() if name in COLD}
    figure, axes = plt.subplots(
        2, 1, figsize=(11, 7), height_ratios=(len(warm) + 1, len(cold) + 1), layout="constrained"
    )
    for axis, rows in zip(axes, (warm, cold), strict=True):
        _draw(axis, rows, colours)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
    figure.legend(handles, names, loc="outside right upper", fontsize=8)
    figure.suptitle("from start to exit, median (B0, B1: to the agent's first answer)", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axis, rows: dict[str, list[tuple[str, float]]], colours: dict[str, object]) -> None:
    for y, parts in enumerate(rows.values()):
        left = 0.0
        for part, width in parts:
            axis.barh(y, width, left=left, color=colours[part], edgecolor="white", linewidth=0.4)
            left += width
        axis.text(left, y, f" {left:.0f} ms", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("ms", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
