"""``kata install``: make a container engine know the runtime, in a file of our own; or undo it."""

from __future__ import annotations

from kata.cli.engines import containerd, crio, docker, podman
from kata.cli.engines.host import Host
from kata.cli.engines.owned import Owned
from kata.cli.engines.plan import ByHand, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Do, undo, or only show."""
    host = Host(options.destdir or "", options.engine_version or "")
    owned = Owned(host)
    if options.undo:
        return _undo(options, host, owned)
    try:
        plan = _plan(options.engine, host, owned)
    except ByHand as error:
        print(error.lines, end="", flush=True)
        raise
    if not plan.path:
        print(f"nothing to do: {plan.said}")
    elif not owned.check(plan):
        print(f"nothing to do: {host.place(plan.path)} is as it should be")
    elif options.dry_run:
        print(f"# would write {host.place(plan.path)}\n{plan.text}", end="")
        return 0
    else:
        owned.write(plan)
        print(f"wrote {host.place(plan.path)}")
        if plan.restart:
            print(f"restart the engine:  {plan.restart}")
    print(f"try it:  {plan.then}")
    return 0


def _plan(engine: str, host: Host, owned: Owned) -> Plan:
    if engine == "containerd":
        return containerd.plan(host, owned.has)
    if engine == "docker":
        return docker.plan(host, ours=owned.has(docker.PATH))
    return podman.plan(host) if engine == "podman" else crio.plan(host)


def _undo(options: Options, host: Host, owned: Owned) -> int:
    path = owned.path(options.engine)
    if not path:
        print(f"nothing to undo: kata install {options.engine} has written nothing")
    elif options.dry_run:
        kept = ", if it were not edited" if owned.edited(options.engine) else ""
        print(f"would remove {host.place(path)}{kept}")
    elif owned.remove(options.engine):
        reads_at_start = options.engine != "podman"
        print(f"removed {host.place(path)}" + ("; restart the engine" if reads_at_start else ""))
    else:
        print(f"{host.place(path)} is gone already")
    return 0
