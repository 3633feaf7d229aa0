"""Traffic control: what becomes of everything that enters a link. Messages only, pure.

The filter is ``u32`` with a key that matches everything, since ``matchall`` is not in every kernel.
Sources: tc-u32(8), tc-mirred(8), linux/{pkt_sched,pkt_cls}.h, linux/tc_act/tc_mirred.h,
tc-bpf(8).
"""

from __future__ import annotations

from _struct import Struct

from kata.linux import netlink as nl

NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWTFILTER, DELTFILTER, GETTFILTER = 44, 45, 46
_INGRESS_PARENT, _INGRESS = 0xFFFFFFF1, 0xFFFF0000
_EVERY_PROTOCOL = 0x0300  # ETH_P_ALL, in network byte order
_PRIORITY = 1
_CLASSIFIERS = 0x6B61  # the priority of the first; each protocol has one of its own
_INTO = 0xFFFFFFF2  # TC_H_MIN_INGRESS: right for both kinds of places there are, "clsact" too
_KIND, _OPTIONS = 1, 2
_TERMINAL = 1  # TC_U32_TERMINAL: what matches is classified
_STOLEN, _REDIRECT = 4, 1  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
_MESSAGE = Struct("<BxxxiIII")  # tcmsg: family, link, handle, parent, info
_SELECTOR = Struct("<BBBxHHhhI")  # tc_u32_sel: flags, offset shift, number of keys, …
_MIRRED = Struct("<IIiiiiI")  # tc_mirred: index, capabilities, action, two counts, kind, link


def ingress(index: int) -> bytes:
    """For NEWQDISC and DELQDISC: the place where filters see what enters a link."""
    return _MESSAGE.pack(0, index, _INGRESS, _INGRESS_PARENT, 0) + nl.text(_KIND, "ingress")


def redirect(index: int, target: int) -> bytes:
    """For NEWTFILTER: all that enters the link ``index`` leaves by the link ``target``."""
    selector = _SELECTOR.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
    mirred = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _REDIRECT, target)
    action = nl.text(_KIND, "mirred") + nl.nest(_OPTIONS, nl.attribute(2, mirred))
    options = nl.attribute(5, selector) + nl.nest(7, nl.nest(1, action))
    head = _MESSAGE.pack(0, index, 0, _INGRESS, _PRIORITY << 16 | _EVERY_PROTOCOL)
    return head + nl.text(_KIND, "u32") + nl.nest(_OPTIONS, options)


def classify(index: int, protocol: int, program: int = -1) -> bytes:
    """For NEWTFILTER and DELTFILTER: a BPF program decides over packets of an EtherType.

    ``program`` is its descriptor; without one the filter is only named, for removal.
    """
    order = (protocol & 0xFF) << 8 | protocol >> 8
    priority = _CLASSIFIERS + (protocol >> 12)
    head = _MESSAGE.pack(0, index, 1, _INTO, priority << 16 | order) + nl.text(_KIND, "bpf")
    if program < 0:
        return head
    options = (nl.number(6, program), nl.text(7, "kata"), nl.number(8, 1))  # it acts directly
    return head + nl.nest(_OPTIONS, *options)
