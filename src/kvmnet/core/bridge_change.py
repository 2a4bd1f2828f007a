"""What a plan about a bridge comes to, and a bridge as it is now in the same words."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.core.bridge_checks import check_owned
from kvmnet.core.bridge_picture import global_addresses
from kvmnet.core.finding import command, some
from kvmnet.errors import NotFound
from kvmnet.model.host import Link
from kvmnet.model.plan import PlannedStep
from kvmnet.model.state import State
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac


class BridgeChange(Struct, frozen=True, kw_only=True):
    """What is to be done about one bridge: live, and in the files of the host network manager."""

    title: str
    bridge: str
    nics: tuple[str, ...] = ()
    """Links whose traffic must not suffer: what works by them before has to work after."""
    arrange: PlannedStep | None = None
    """The live change; None: it is so already."""
    takeover: Takeover | None = None
    """The bridge as it is to be kept; None: it is not to be kept (any more)."""
    before: Takeover | None = None
    """The bridge as it is kept now: for deleting, and for other ports."""
    heir: str | None = None
    """The NIC whose owner decides which manager keeps it."""
    notes: tuple[str, ...] = ()


def find_bridge(state: State, name: str) -> Link:
    link = state.link(name)
    if link is None or link.bridge is None:
        bridges = some(x.name for x in state.links if x.bridge is not None)
        raise NotFound(
            f"there is no bridge {command(name)}",
            why=f"there are: {bridges}" if bridges else "there is no bridge at all",
            hint="kvmnet bridge list",
        )
    check_owned(state, link)
    return link


def nics_of(state: State, bridge: str) -> tuple[Link, ...]:
    """The bridge's ports that lead out of the host; guests' taps do not."""
    return tuple(x for x in state.ports(bridge) if x.kind != "tap")


def heir_of(state: State, bridge: Link) -> Link | None:
    """The NIC in whose place the bridge is: that of its MAC, else the first one."""
    nics = nics_of(state, bridge.name)
    return next((x for x in nics if x.mac == bridge.mac), nics[0] if nics else None)


def kept_as(state: State, bridge: Link) -> Takeover:
    """The bridge as it is now, in the words in which it was handed over."""
    has, heir = bridge.bridge, heir_of(state, bridge)
    assert has is not None
    addressed = bool(global_addresses(state, bridge.name))
    return Takeover(
        bridge=bridge.name,
        mac=bridge.mac or mac_of_name(state, bridge.name),
        mtu=bridge.mtu,
        ports=tuple(map(port_of, nics_of(state, bridge.name))),
        heir_of=heir.name if heir is not None and addressed else None,
        address="keep" if addressed else "none",
        stp=has.stp,
        forward_delay_s=has.forward_delay_s if has.stp else None,
        vlan_filtering=has.vlan_filtering,
    )


def mac_of_name(state: State, bridge: str) -> Mac:
    """The same at every try; locally administered (IEEE 802c)."""
    import hashlib  # late: few bridges need it, and it loads OpenSSL

    digest = hashlib.sha256(f"{state.hostname}\0{bridge}".encode()).digest()
    return Mac(bytes([0x02, *digest[:5]]).hex(":"))


def port_of(link: Link) -> BridgePort:
    return BridgePort(name=link.name, mac=link.mac, kind=link.kind, mtu=link.mtu)


def shown_addresses(state: State, name: str) -> str:
    return some(f"{x.ip}/{x.prefix_len}" for x in global_addresses(state, name))
