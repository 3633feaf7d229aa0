"""The sandbox's network in the guest: cards, addresses, routes and neighbours as the host says.

The rule: it is that of the agent's own network namespace, which the containers of the sandbox
share. Cards are looked for before a template is frozen, so that a copy of it only sets them.
"""

from __future__ import annotations

import os
from select import EPOLLIN

from kata.errors import GuestError, KataError, WrongState
from kata.guest import netplan
from kata.guest.process import Outcome
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc
from kata.linux.netlink_socket import GONE, NetlinkError, Rtnetlink
from kata.wire.agent_api import (
    CARD_PREFIX,
    Empty,
    Interface,
    NetworkAddress,
    Route,
    UpdateNetworkRequest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.loop import Loop
    from kata.wire.protobuf import Message

_LINKS = 0x1  # RTMGRP_LINK


_REHEARSALS = 8


def _sample(device: str, name: str, mac: str) -> UpdateNetworkRequest:
    """A network such as many have; decoded from bytes, as a real one is."""
    addresses = [
        NetworkAddress(address="192.0.2.2", prefix=24, broadcast="192.0.2.255"),
        NetworkAddress(address="2001:db8::2", prefix=64),
    ]
    interface = Interface(device=device, name=name, mac=mac, mtu=1500, addresses=addresses)
    routes = [Route(gateway="192.0.2.1", interface=name, kind=1)]
    request = UpdateNetworkRequest(interfaces=[interface], routes=routes)
    return UpdateNetworkRequest.decode(request.encode())


class Network:
    """The network of the namespace it is first used in."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._sock: Rtnetlink | None = None
        self._names: dict[int, str] = {}
        self._cards: dict[str, int] = {}  # device -> index
        self._done = netplan.State()
        self._news: Rtnetlink | None = None
        self._waiting: tuple[UpdateNetworkRequest, Outcome] | None = None
        self._idle: set[str] = set()  # devices that stand for no link, still in sight
        self._stowed: set[str] = set()  # devices in the spare namespace
        self._spare: tuple[int, Rtnetlink] | None = None
        self._first: tuple[int, Rtnetlink] | None = None  # where new cards appear, if not here
        self._asked = UpdateNetworkRequest()

    def look(self) -> bool:
        """See which links there are; whether one is a card. New ones are made ready."""
        if self._sock is None:
            self._sock = Rtnetlink()
        self._take_new()
        links = self._sock.links()
        self._names = {link.index: link.name for link in links}
        known = {index: device for device, index in self._cards.items()}
        self._cards = {}
        for link in links:
            device = known.get(link.index) or link.permanent_mac or link.mac
            if device.startswith(CARD_PREFIX):
                self._cards[device] = link.index
                if link.index not in known:
                    self._sock.keep_quiet(link.index)
                    # up costs a copy of the template 25 ms: it has neither address nor routes
                    self._sock.set_link(link.index, up=True)
        if self._cards and not known:
            ns.loopback_up()
        return bool(self._cards)

    def rehearse(self) -> None:
        """Do before a template is frozen what each copy of it does first; nothing of it stays."""
        for number in range(_REHEARSALS):
            mac = f"{CARD_PREFIX}{0x80 + number:02x}"
            for device, index in self._cards.items():
                self._apply(_sample(device, self._names[index], mac))
                self._apply(_sample(device, self._names[index], device))
                self._apply(UpdateNetworkRequest())
        if self._sock is not None:
            for index in self._cards.values():
                self._sock.set_link(index, up=True)
        if self._cards:
            self._make_spare()

    def update(self, request: UpdateNetworkRequest) -> Message | Outcome:
        """Make the network what is asked. Raises ``GuestError``, ``InvalidInput``."""
        self._supersede()
        self._fetch({i.device for i in request.interfaces} & self._stowed)
        if self._missing(request):
            self._listen()
            self.look()
            if self._missing(request):
                self._waiting = request, Outcome()
                return self._waiting[1]
            self._deafen()
        self._apply(request)
        self._idle = set(self._cards) - {i.device for i in request.interfaces}
        return Empty()

    def move(self, namespace: int) -> None:
        """Go to another network namespace (by descriptor), and the agent with it.

        Cards go along and get again what they had; those to come appear in the first one, and are
        taken from there.
        """
        if self._sock is None:
            self.look()
        left, self._sock = self._sock, None
        assert left is not None
        if self._first is None:
            self._first = os.open(ns.path_of("network"), os.O_RDONLY | os.O_CLOEXEC), left
        sc.setns(namespace, sc.CLONE_NEWNET)
        ns.loopback_up()
        self._move_all(left, lambda device: device.startswith(CARD_PREFIX))
        if left is not self._first[1]:
            left.close()
        self._cards, self._done = {}, netplan.State()
        self.look()
        if self._asked.interfaces or self._asked.routes:
            self._apply(self._asked)

    def _take_new(self) -> None:
        if self._first is not None:
            self._move_all(self._first[1], lambda device: device.startswith(CARD_PREFIX))

    @staticmethod
    def _move_all(source: Rtnetlink, wanted: Callable[[str], bool]) -> None:
        """Bring cards here from where another socket is."""
        own = os.open(ns.path_of("network"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            for link in source.links():
                if wanted(link.permanent_mac or link.mac):
                    source.move_link(link.index, own)
        finally:
            os.close(own)

    # cards that stand for no link: containers are not to see them

    def settle(self) -> None:
        """Take cards without a link out of sight, into a namespace of nobody's.

        That takes 100 ms under emulation, so it is done when nobody waits, and before a container's
        program runs.
        """
        devices, self._idle = self._idle & set(self._cards), set()
        if not devices:
            return
        assert self._sock is not None
        self._make_spare()
        assert self._spare is not None
        for device in devices:
            index = self._cards.pop(device)
            self._sock.move_link(index, self._spare[0])
            self._names.pop(index, None)
            self._stowed.add(device)

    def _make_spare(self) -> None:
        if self._spare is None:
            namespace = ns.new_network()
            with ns.Inside(namespace):
                self._spare = namespace, Rtnetlink()

    def _fetch(self, devices: set[str]) -> None:
        """Bring cards back that a link has come for."""
        if not devices:
            return
        assert self._spare is not None
        self._move_all(self._spare[1], lambda device: device in devices)
        self._stowed -= devices
        self.look()

    def _missing(self, request: UpdateNetworkRequest) -> bool:
        return any(i.device not in self._cards for i in request.interfaces)

    def _apply(self, request: UpdateNetworkRequest) -> None:
        wanted = netplan.wanted(request, self._cards)
        if self._sock is None:
            self.look()
        assert self._sock is not None
        steps = netplan.steps(self._done, wanted, self._names)
        try:
            self._sock.apply(steps.remove, GONE)
            self._sock.apply(steps.add)
        except NetlinkError as error:
            self._done = netplan.State()  # nobody knows: the next request is applied in full
            self.look()
            raise GuestError(f"network: {error.filename}", why=error.strerror or "") from None
        self._done, self._asked = wanted, request
        for card in wanted.cards:
            self._names[card.index] = card.name

    # a card that is still to come

    def _listen(self) -> None:
        if self._news is None:
            if self._first is None:
                self._news = Rtnetlink(_LINKS)
            else:
                with ns.Inside(self._first[0]):
                    self._news = Rtnetlink(_LINKS)
            self._loop.watch(self._news.fileno(), EPOLLIN, self._told)

    def _deafen(self) -> None:
        if self._news is not None:
            self._loop.forget(self._news.fileno())
            self._news.close()
            self._news = None

    def _supersede(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting[1].settle(WrongState("another change of the network came first"))

    def _told(self, _events: int) -> None:
        assert self._news is not None
        if not self._news.changed() or self._waiting is None:
            return
        request, outcome = self._waiting
        try:
            self.look()
            if self._missing(request):
                return
            self._apply(request)
        except OSError as error:
            outcome.settle(GuestError("network", why=str(error)))
        except KataError as error:
            outcome.settle(error)
        else:
            outcome.settle(Empty())
        self._waiting = None
        self._deafen()
