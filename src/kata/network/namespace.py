"""The network namespace of a sandbox, connected to the cards of its virtual machine.

    with Network("/run/netns/pod", slots=machine.nic_slots) as network:
        bindings = Bindings(nics=network.fds, ...)          # the VMM is started
        for card in network.unplugged():                     # more links than wired cards
            vm.plug_nic(*card)
        client.call("UpdateNetwork", network.guest_request())
        network.watch(changed)                               # links that come later

The one rule: what it made in the namespace (taps, filters) goes with it, and nothing else is
touched. Taps are there from the start, whether or not there is a link for them.
"""

from __future__ import annotations

import _thread
import os

from kata.errors import HostError, Unsupported
from kata.linux import tap
from kata.linux.namespaces import Inside, new_network
from kata.linux.netlink_socket import GROUPS, Rtnetlink
from kata.network.observe import observe
from kata.network.plan import MOST_ENDPOINTS, Plan, plan, request
from kata.network.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from kata.errors import KataError
    from kata.wire.agent_api import UpdateNetworkRequest

MODELS = ("tcfilter", "none")
_EBUSY = 16


class Tap:
    """One tap in the namespace, for one slot; ``target`` is the link it is connected to."""

    def __init__(self, slot: int, fd: int, index: int) -> None:
        self.slot, self.fd, self.index = slot, fd, index
        self.vhost = tap.open_vhost()
        self.plugged = False
        self.target = 0
        self.mtu = 0

    def close(self) -> None:
        """Close our descriptors; the VMM has its own."""
        for fd in (self.fd, self.vhost):
            if fd >= 0:
                os.close(fd)
        self.fd = self.vhost = -1


class Network:
    """A namespace (a path, or a descriptor that stays the caller's) and our taps in it.

    Any thread may call its methods. Raises ``HostError``, and ``Unsupported`` on entering if it
    holds a link that no card can stand for.
    """

    def __init__(self, namespace: str | int, *, model: str = "tcfilter", slots: int = 1) -> None:
        if model not in MODELS:
            raise Unsupported(
                f'no internetworking model "{model}"', hint="known are " + ", ".join(MODELS)
            )
        self._given = namespace
        self._slots = slots if model != "none" else 0
        self._passive = model == "none"
        self._lock = _thread.allocate_lock()
        self._namespace = -1
        self._sock: Rtnetlink | None = None
        self._events: Rtnetlink | None = None
        self._watch: Watch | None = None
        self._taps: dict[int, Tap] = {}
        self._plan = Plan()
        self._told: bytes | None = b""  # what the guest has been told, as far as anybody knows

    def __enter__(self) -> Self:
        try:
            self._open()
            for slot in range(self._slots):
                self._new_tap(slot)
            self._look()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        try:
            if isinstance(self._given, str):
                self._namespace = os.open(self._given, os.O_RDONLY | os.O_CLOEXEC)
            else:
                self._namespace = os.dup(self._given)
            with Inside(self._namespace):
                self._events = Rtnetlink(GROUPS)  # first: what comes from now on is heard
                self._sock = Rtnetlink()
        except OSError as error:
            raise HostError(
                f'cannot enter the network namespace "{self._given}"', why=_reason(error)
            ) from None
    def _look(self) -> None:
        """Connect what there is. Raises ``Unsupported`` for a link that no card can stand for."""
        self.refresh()
        if self._plan.refused:
            raise _refusal(self._plan)

    def move(self, namespace: int) -> None:
        """Go to another namespace (a descriptor that stays the caller's), taps and VMM with us.

        Before ``watch``; raises as entering does. The guest is to be told all of it.
        """
        with self._lock:
            assert self._sock is not None
            assert self._events is not None
            try:
                for made in self._taps.values():
                    self._sock.move_link(made.index, namespace)
            except OSError as error:
                raise HostError("cannot move a tap device", why=_reason(error)) from None
            self._sock.close()
            self._events.close()
            os.close(self._namespace)
            self._given, self._told = namespace, b""
            self._open()
            for made in self._taps.values():
                # the kernel takes filters and addresses away from a link that moves
                made.index = self._sock.link(name=_name(made.slot)).index
                made.mtu = made.target = 0
                self._sock.keep_quiet(made.index)
        self._look()

    def _new_tap(self, slot: int) -> Tap:
        assert self._sock is not None
        name = _name(slot)
        try:
            with Inside(self._namespace):
                fd = tap.open_tap(name)
        except OSError as error:
            busy = error.errno == _EBUSY
            raise HostError(
                "cannot make a tap device", why=_reason(error),
                hint="another sandbox uses this network namespace" if busy else "modprobe tun",
            ) from None  # fmt: skip
        try:
            made = Tap(slot, fd, self._sock.link(name=name).index)
            self._sock.keep_quiet(made.index)
        except OSError:
            os.close(fd)
            raise
        self._taps[slot] = made
        return made

    @property
    def fds(self) -> tuple[tuple[int, int, int], ...]:
        """(slot, tap, vhost-net or -1) of the wired slots, for ``hypervisors.Bindings``."""
        taps = [self._taps[slot] for slot in range(self._slots)]
        for made in taps:
            made.plugged = True
        return tuple((made.slot, made.fd, made.vhost) for made in taps)

    def unplugged(self) -> tuple[tuple[int, int, int], ...]:
        """The same of cards that are to be plugged; each is named once."""
        with self._lock:
            taps = [t for t in self._taps.values() if not t.plugged and t.slot >= self._slots]
            for made in taps:
                made.plugged = True
        return tuple((made.slot, made.fd, made.vhost) for made in taps)

    def close_fds(self) -> None:
        """Close our descriptors of the taps that the VMM has: they then end with it."""
        for made in self._taps.values():
            if made.plugged:
                made.close()

    @property
    def plan(self) -> Plan:
        """The endpoints as they are now."""
        return self._plan

    def guest_request(self) -> UpdateNetworkRequest:
        """What the agent is to be told now (``UpdateNetwork``)."""
        return request(self._plan)

    def refresh(self) -> bool:
        """Look at the namespace, connect what is new; whether the guest is to be told."""
        if self._passive:
            return False
        with self._lock:
            if self._sock is None:
                return False
            try:
                return self._refresh(self._sock)
            except OSError as error:
                raise HostError("cannot connect the network", why=_reason(error)) from None

    def _refresh(self, sock: Rtnetlink) -> bool:
        ours = {made.index for made in self._taps.values()}
        slots = {made.target: made.slot for made in self._taps.values() if made.target}
        found = plan(observe(sock, ours), slots)
        kept = {endpoint.link.index for endpoint in found.endpoints}
        for made in self._taps.values():
            if made.target not in kept:
                made.target = 0  # its link is gone, and the filters with it
        for endpoint in found.endpoints:
            made = self._taps.get(endpoint.slot) or self._new_tap(endpoint.slot)
            if made.mtu != endpoint.mtu:
                sock.set_link(made.index, mtu=endpoint.mtu)
                made.mtu = endpoint.mtu
            if made.target != endpoint.link.index:
                self._connect(sock, made, endpoint.link.index)
        self._plan = found
        wanted = request(found).encode()
        same, self._told = self._told == wanted, wanted
        return not same

    @staticmethod
    def _connect(sock: Rtnetlink, made: Tap, target: int) -> None:
        sock.redirect(target, made.index)
        sock.redirect(made.index, target)
        sock.set_link(made.index, up=True)
        made.target = target

    def watch(
        self, changed: Callable[[Network], None],
        failed: Callable[[KataError], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """From now on, until ``close``, call ``changed`` when the guest is to be told something.

        Called by a thread of its own (which must not ``close``), once at first if something
        changed since it was looked at; ``unplugged`` may have cards then. ``failed`` gets what
        went wrong meanwhile; what ``changed`` could not tell is told again at the next change.
        """
        from kata.errors import KataError

        events, self._events = self._events, None
        if events is None or self._passive:
            return

        def look() -> None:
            refused = self._plan.refused
            try:
                if self.refresh():
                    changed(self)
                if self._plan.refused and self._plan.refused != refused:
                    raise _refusal(self._plan)
            except KataError as error:
                self._told = None
                failed(error)

        self._watch = Watch(events, look)

    def close(self) -> None:
        """Take back all that was made; any number of times, also if the namespace is gone."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        with self._lock:
            sock, self._sock = self._sock, None
            if sock is not None:
                self._take_back(sock)
                sock.close()
            if self._events is not None:
                self._events.close()
                self._events = None
            for made in self._taps.values():
                made.close()
            self._taps.clear()
            if self._namespace >= 0:
                os.close(self._namespace)
                self._namespace = -1

    def leave(self) -> None:
        """Close everything and take nothing back: the VMM goes on with the taps it has."""
        for made in self._taps.values():
            made.close()
        self._taps.clear()
        self.close()

    def _take_back(self, sock: Rtnetlink) -> None:
        for made in self._taps.values():
            for step, index in ((sock.drop_redirect, made.target), (sock.delete_link, made.index)):
                try:
                    if index:
                        step(index)
                except OSError:
                    pass  # nothing more can be done, and it ends with the descriptors anyway


def _name(slot: int) -> str:
    return f"tap{slot}_kata"


def new_namespace(path: str = "") -> int:
    """A network namespace for a sandbox that was given none: its descriptor, the caller's.

    With ``path`` it is mounted there, until ``kata.linux.namespaces.remove_mounted``.
    Raises ``HostError``.
    """
    try:
        return new_network(path)
    except OSError as error:
        raise HostError("cannot make a network namespace", why=_reason(error)) from None


def _refusal(plan: Plan) -> Unsupported:
    name, kind = plan.refused[0]
    return Unsupported(
        f'the network link "{name}" cannot be given to a virtual machine', why=kind,
        hint=f"veth, macvlan, ipvlan, vlan and hardware links can, {MOST_ENDPOINTS} at most",
    )  # fmt: skip


def _reason(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{error.strerror or error}"
