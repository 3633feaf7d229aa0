"""``start``: the supervisor of a sandbox is forked, or the one of the pod is found; its address.

The rule: the virtual machine starts at once, while containerd still prepares the container; what
the supervisor needs beyond that is imported while the machine comes up.
"""

from __future__ import annotations

import os

from kata.config.load import load
from kata.errors import AlreadyExists, WrongState
from kata.oci import pods
from kata.runtime.bundle_workload import open_network
from kata.runtime.machines import ready, resolve_shape
from kata.runtime.store import Store, write_atomic
from kata.shim import address as addresses
from kata.shim.bundle import ADDRESS, CONFIG_NOTE, LOG, PID, SPEC
from kata.shim.containers import new_state, read_spec
from kata.shim.seat import Seat, reserve, supervisor_of
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.settings import Config
    from kata.runtime.machines import Launch
    from kata.runtime.store import ContainerState
    from kata.shim.order import Order

    Spec = dict[str, Any]

_INPUT_LIMIT = 10 << 20  # bytes that containerd may write to standard input


def start(order: Order, bundle: str) -> str:
    """Start the sandbox of a container, or find it; gives the address to print."""
    if not os.path.exists(f"{bundle}/{SPEC}"):
        return _start_empty(order, bundle)
    spec = read_spec(bundle)
    membership = pods.membership(order.id, spec.get("annotations") or {})
    sandbox = membership.sandbox or order.id
    path = addresses.socket_path(order.address, order.namespace, sandbox)
    if membership.kind == pods.MEMBER:
        if not addresses.serves(path):
            raise WrongState(
                f'the sandbox "{sandbox}" of container "{order.id}" is not running',
                why=f'nobody listens on "{path}"',
            )
    else:
        try:
            _begin(order, bundle, spec, path)
        except AlreadyExists:
            pass  # it was started before, and containerd asks once more
    return _announce(bundle, path)


def _announce(bundle: str, path: str) -> str:
    found = f"{addresses.SCHEME}{path}"
    write_atomic(f"{bundle}/{ADDRESS}", found.encode())
    return found


def _start_empty(order: Order, bundle: str) -> str:
    """A shim for a sandbox without a container: CreateSandbox says what machine it is to be."""
    path = addresses.socket_path(order.address, order.namespace, order.id)
    config_path = _options()
    try:
        listener = addresses.listen(path)
    except AlreadyExists:
        return _announce(bundle, path)
    seat = Seat(order, bundle, listener, path, _ttrpc(order), "", -1, _own_network(), config_path)
    pid = os.fork()
    if pid == 0:
        from kata.shim.empty import serve

        serve(seat)
    if config_path:
        write_atomic(f"{bundle}/{CONFIG_NOTE}", config_path.encode())
    write_atomic(f"{bundle}/{PID}", str(pid).encode())
    return _announce(bundle, path)


def _begin(order: Order, bundle: str, spec: Spec, path: str) -> None:
    """Fork the supervisor of a new sandbox. Raises ``AlreadyExists`` if it is there."""
    from kata.oci.honoured import drop_unknown_capabilities, refuse

    drop_unknown_capabilities(spec["process"])
    refuse(spec)
    config_path = _options()
    listener = addresses.listen(path)
    lock = -1
    store = None
    try:
        config = load(config_path or None)
        launch = resolve_shape(pods.sizing(spec), config, say=lambda _text: None)
        store = Store(config.runtime.state_root)
        state = replace(new_state(order, spec, bundle), traces=(path,))
        lock = reserve(store, state)
        network = open_network(spec)
        kind = pods.membership(order.id, spec.get("annotations") or {}).kind
        seat = Seat(
            order, bundle, listener, path, _ttrpc(order), kind, network, _own_network(), config_path
        )
        if config_path:
            write_atomic(f"{bundle}/{CONFIG_NOTE}", config_path.encode())
        pid = _fork(seat, (config, launch), store, (state, spec), lock)
    except BaseException:
        if lock >= 0 and store is not None:
            store.forget(state)
        os.unlink(path)
        raise
    write_atomic(f"{bundle}/{PID}", str(pid).encode())


def _options() -> str:
    """The configuration file that containerd's runtime options name, if they do."""
    if os.isatty(0):
        return ""
    data = b""
    try:
        while len(data) < _INPUT_LIMIT and (piece := os.read(0, 1 << 16)):
            data += piece
    except OSError:
        return ""
    if b"runtimeoptions" not in data:
        return ""
    from kata.shim.options import config_path

    return config_path(data)


def _ttrpc(order: Order) -> str:
    """containerd's socket for events; CRI-O has none."""
    named = os.environ.get("TTRPC_ADDRESS", "")
    return named or (f"{order.address}.ttrpc" if order.address else "")


def _own_network() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _fork(
    seat: Seat, decided: tuple[Config, Launch], store: Store, asked: tuple[ContainerState, Spec],
    lock: int,
) -> int:  # fmt: skip
    """The pid of the supervisor, which listens already: one of the pool, or our child."""
    config, launch = decided
    member = ready(config, launch)
    if member is not None:
        from kata.shim.handing import describe, descriptors

        if member.hand(describe(seat, store, asked[0]), descriptors(seat, lock)):
            return member.pid
    pid = os.fork()
    if pid:
        return pid
    from kata.runtime.birth import Child
    from kata.shim.workload import ShimWorkload

    state, spec = asked
    first = ShimWorkload(seat.order.id, state, spec, config.runtime.data_root, seat.network)
    first.deferred = True
    child = Child((first, launch), config, store, state, supervisor_of(seat))
    keep = {lock, seat.network, seat.host_network, seat.listener.fileno()}
    log = f"{seat.bundle}/{LOG}"
    child.supervise([], {}, keep, log if os.path.lexists(log) else "")
    raise AssertionError("a supervisor does not return")
