"""Reads what only the doctor needs of bridges: VLANs of their ports, multicast listeners."""

from __future__ import annotations

import socket

import msgspec

from kvmnet.adapters.run import run
from kvmnet.errors import Unavailable
from kvmnet.formats import port_facts, rtnetlink
from kvmnet.model.setup import BridgeMulticast, PortVlans

_ANSWERS_WITHIN_S = 2.0
_DATAGRAM = 1 << 17
_MOST = 1000


def read_port_vlans() -> tuple[PortVlans, ...]:
    """The VLANs of all ports of bridges; nothing of a kernel without VLAN filtering."""
    done = run(["bridge", "-json", "-compressvlans", "vlan", "show"])
    return port_facts.parse_vlans(done.stdout)


def read_multicast() -> tuple[BridgeMulticast, ...]:
    """Listeners, routers and whether there is an IPv6 querier, for each bridge that has any.

    Raises `KvmnetError`.
    """
    listeners = port_facts.parse_listeners(run(["bridge", "-json", "-details", "mdb"]).stdout)
    asking = _bridges_with_querier6()
    silent = asking - {x.bridge for x in listeners}
    return (
        *(msgspec.structs.replace(x, querier6=x.bridge in asking) for x in listeners),
        *(BridgeMulticast(bridge=x, querier6=True) for x in sorted(silent)),
    )


def _bridges_with_querier6() -> frozenset[str]:
    found: set[str] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as door:
            door.settimeout(_ANSWERS_WITHIN_S)
            door.send(rtnetlink.link_request())
            for _ in range(_MOST):
                data = door.recv(_DATAGRAM)
                found.update(rtnetlink.bridges_with_querier6(data))
                if rtnetlink.is_last(data):
                    break
    except OSError as error:
        why = error.strerror or str(error)
        raise Unavailable("the kernel does not tell of multicast queriers", why=why) from None
    return frozenset(found)
