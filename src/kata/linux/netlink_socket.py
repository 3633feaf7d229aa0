"""A socket to the kernel's rtnetlink, of the network namespace in which it was opened.

The one rule: what fails raises ``NetlinkError`` (an ``OSError``) that says what was tried. A
socket belongs to one thread at a time.
"""

from __future__ import annotations

import _socket
import os

from kata.linux import netlink as nl
from kata.linux import rtnetlink as rt
from kata.linux import traffic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self, TypeVar

    T = TypeVar("T")

GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, IPv4 addresses and routes, IPv6 likewise
_ROUTE_FAMILY, _SOL_NETLINK = 0, 270
_EXTENDED_ACK, _STRICT_CHECK = 11, 12
_RECEIVE_BUFFER, _READ = 1 << 20, 1 << 16
_ESRCH, _ENODEV, _EADDRNOTAVAIL, _ENOENT, _EINVAL = 3, 19, 99, 2, 22
_ENOBUFS, _EAFNOSUPPORT, _EOPNOTSUPP = 105, 97, 95
_TRIES = 5  # a dump that was interrupted by a change is made again
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
GONE = frozenset((_ESRCH, _ENODEV, _EADDRNOTAVAIL, _ENOENT))


class NetlinkError(OSError):
    """An operation that the kernel refused: errno, its text, the operation."""

    def __init__(self, number: int, what: str, more: str = "") -> None:
        reason = os.strerror(number).lower()
        super().__init__(number, f"{reason} ({more})" if more else reason, what)


class Rtnetlink:
    """Requests to rtnetlink. Close it, or use it as a context."""

    def __init__(self, groups: int = 0) -> None:
        """With ``groups`` it is told of changes: only ``changed`` is to be called then."""
        self._sock = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _ROUTE_FAMILY
        )
        self._number = 0
        self._sock.bind((0, groups))
        if groups:
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _RECEIVE_BUFFER)
        for option in (_EXTENDED_ACK, _STRICT_CHECK):
            try:
                self._sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # a kernel before 4.20: messages are shorter, dumps hold more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._sock.fileno()

    # asking

    def links(self) -> list[rt.Link]:
        """All links."""
        return self._dump(rt.GETLINK, rt.link_body(), rt.parse_link, "list links")

    def link(self, index: int = 0, name: str = "") -> rt.Link:
        """One link, by index or name."""
        what = f"find the link {name or index}"
        answers = self._exchange([(rt.GETLINK, 0, rt.link_body(index, name), what)], ack=False)
        return rt.parse_link(answers[0])

    def addresses(self) -> list[rt.Address]:
        """All addresses of all links."""
        return self._dump(rt.GETADDR, bytes(8), rt.parse_address, "list addresses")

    def routes(self, table: int = rt.TABLE_MAIN) -> list[rt.Route]:
        """The routes of a table, of both families; the kernel's cache left out."""
        found = []
        for family in (_socket.AF_INET, _socket.AF_INET6):
            body = bytes((family,)) + bytes(11)
            routes = self._dump(rt.GETROUTE, body, rt.parse_route, "list routes")
            found += [r for r in routes if r.table == table and not r.flags & rt.CLONED]
        return found

    def neighbours(self) -> list[rt.Neighbour]:
        """All known neighbours."""
        return self._dump(rt.GETNEIGH, bytes(12), rt.parse_neighbour, "list neighbours")

    # changing

    def apply(
        self, changes: Sequence[tuple[int, int, bytes, str]],
        tolerate: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """Make several changes with one system call; see ``change`` for what each is made of.

        All are tried, and the first refusal raised whose errno is not in ``tolerate``.
        """
        if changes:
            self._exchange(changes, tolerate=tolerate)

    def set_link(
        self, index: int, *, name: str = "", mac: str = "", mtu: int = 0, up: bool | None = None
    ) -> None:
        """Change a link."""
        flags, mask = rt.UP if up else 0, 0 if up is None else rt.UP
        body = rt.change_link(index, name=name, mac=mac, mtu=mtu, flags=flags, mask=mask)
        self.apply([(rt.SETLINK, 0, body, f"change the link {index}")])

    def move_link(self, index: int, namespace: int) -> None:
        """Take a link into another network namespace; it is down there."""
        body = rt.move_link(index, namespace)
        self.apply([(rt.SETLINK, 0, body, f"move the link {index}")])

    def keep_quiet(self, index: int) -> None:
        """Let a link have no IPv6 addresses but those it is given; no IPv6 at all is fine."""
        what = f"configure IPv6 of the link {index}"
        body = rt.no_own_addresses(index)
        self.apply([(rt.SETLINK, 0, body, what)], frozenset((_EAFNOSUPPORT, _EOPNOTSUPP)))

    def new_link(self, name: str, kind: str, *, parent: int = 0, data: bytes = b"") -> rt.Link:
        """Make a link of a kind."""
        body = rt.new_link(name, kind, parent=parent, data=data)
        flags = nl.CREATE | nl.EXCLUSIVE
        self.apply([(rt.NEWLINK, flags, body, f"make the {kind} link {name}")])
        return self.link(name=name)

    def delete_link(self, index: int) -> None:
        """Delete a link; one that is gone is fine."""
        body = rt.link_body(index)
        self.apply([(rt.DELLINK, 0, body, f"delete the link {index}")], GONE)

    def redirect(self, index: int, target: int) -> None:
        """Let everything that enters a link leave by another; what was there before goes."""
        self.drop_redirect(index)
        what = f"redirect the link {index} to {target}"
        self.apply([
            (traffic.NEWQDISC, nl.CREATE | nl.EXCLUSIVE, traffic.ingress(index), what),
            (traffic.NEWTFILTER, nl.CREATE | nl.EXCLUSIVE, traffic.redirect(index, target), what),
        ])  # fmt: skip

    def drop_redirect(self, index: int) -> None:
        """Take the ingress filters of a link away; nothing there is fine."""
        what = f"remove the filters of the link {index}"
        gone = GONE | {_EINVAL}  # what kernels say of an ingress that is not there
        self.apply([(traffic.DELQDISC, 0, traffic.ingress(index), what)], gone)

    def changed(self) -> bool:
        """Take what was told; whether anything was (also if so much that some was lost)."""
        seen = False
        while True:
            try:
                seen = bool(self._sock.recv(_READ, _socket.MSG_DONTWAIT)) or seen
            except BlockingIOError:
                return seen
            except OSError as error:
                if error.errno != _ENOBUFS:
                    raise
                seen = True

    # talking

    def _dump(self, kind: int, body: bytes, parse: Callable[[bytes], T], what: str) -> list[T]:
        for _ in range(_TRIES):
            self._number += 1
            self._send(nl.message(kind, nl.REQUEST | nl.ROOT_MATCH, self._number, body), what)
            found, whole = self._collect(self._number, what)
            if whole:
                break
        return [parse(item) for item in found]

    def _collect(self, number: int, what: str) -> tuple[list[bytes], bool]:
        """The parts of a dump, and whether nothing changed while it was made."""
        found: list[bytes] = []
        whole = True
        while True:
            for item in nl.messages(self._receive(what)):
                if item.number != number:
                    continue
                whole = whole and not item.flags & _INTERRUPTED
                if item.kind == nl.DONE:
                    return found, whole
                if item.kind == nl.ERROR:
                    raise NetlinkError(*_refusal(item, what))
                found.append(item.body)

    def _exchange(
        self, changes: Sequence[tuple[int, int, bytes, str]], *, ack: bool = True,
        tolerate: frozenset[int] = frozenset(),
    ) -> list[bytes]:  # fmt: skip
        """Send requests and take the answer to each."""
        first = self._number + 1
        flag = nl.REQUEST | (nl.ACK if ack else 0)
        frames = []
        for kind, flags, body, _ in changes:
            self._number += 1
            frames.append(nl.message(kind, flags | flag, self._number, body))
        self._send(nl.join(frames), changes[0][3])
        answers: list[bytes] = []
        refused: NetlinkError | None = None
        done = 0
        while done < len(changes):
            for item in nl.messages(self._receive(changes[done][3])):
                if not first <= item.number <= self._number:
                    continue
                done += 1
                if item.kind != nl.ERROR:
                    answers.append(item.body)
                    continue
                number, what, more = _refusal(item, changes[item.number - first][3])
                if number and number not in tolerate and refused is None:
                    refused = NetlinkError(number, what, more)
        if refused is not None:
            raise refused
        return answers

    def _send(self, data: bytes, what: str) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise NetlinkError(error.errno or _EINVAL, what) from None

    def _receive(self, what: str) -> bytes:
        try:
            return self._sock.recv(_READ)
        except OSError as error:
            raise NetlinkError(error.errno or _EINVAL, what) from None


def _refusal(answer: nl.Message, what: str) -> tuple[int, str, str]:
    number, more = nl.failure(answer)
    return number, what, more
