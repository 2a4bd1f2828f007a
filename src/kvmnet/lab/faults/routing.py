"""The host as a router of its guests: forwarding, filters by source, routes of others."""

from __future__ import annotations

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import (
    Breakage,
    Fault,
    Look,
    Stage,
    back,
    command,
    probe,
    set_sysctl,
    tolerant,
)
from kvmnet.lab.faults.libvirt_nft import network
from kvmnet.lab.faults.stages import NETWORK

_FORWARD = "net/ipv4/ip_forward"


def _forward_off(look: Look) -> Breakage:
    # Writing the global switch writes that of every link (ip-sysctl.txt), so these come back too.
    links = look.out("ls", "/proc/sys/net/ipv4/conf").split()
    keys = [f"net/ipv4/conf/{x}/forwarding" for x in links]
    return Breakage(make=(set_sysctl(_FORWARD, "0"),), mend=back(look, _FORWARD, *keys))


def _interface_off(look: Look) -> Breakage:
    bridge, _ = network(look)
    key = f"net/ipv4/conf/{bridge}/forwarding"
    return Breakage(make=(set_sysctl(key, "0"),), mend=back(look, key))


_TABLE = "177"
"""The routing table for what bears a mark of that number."""
_PAST_VPN = """\
table ip past_vpn {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{bridge}" meta mark set {mark}
  }}
}}
"""


def _rp_filter(look: Look) -> Breakage:
    bridge, _ = network(look)
    uplink = look.uplink()
    key = f"net/ipv4/conf/{uplink}/rp_filter"
    rule = ("fwmark", _TABLE, "lookup", _TABLE, "priority", _TABLE)
    vpn = [
        "tuntap add dev tun-vpn0 mode tun",
        "address add 10.9.0.2/24 dev tun-vpn0",
        "link set tun-vpn0 up",
        *(f"route add {half} via 10.9.0.1 dev tun-vpn0 onlink"
          for half in ("0.0.0.0/1", "128.0.0.0/1")),
        f"route add default via {t.ROUTER_IP} dev {uplink} table {_TABLE}",
    ]  # fmt: skip
    return Breakage(
        make=(
            command("ip", "-batch", "-", stdin="\n".join(vpn) + "\n"),
            command("ip", "rule", "add", *rule),
            command("nft", "-f", "-", stdin=_PAST_VPN.format(bridge=bridge, mark=_TABLE)),
            set_sysctl(key, "1"),
        ),
        mend=(
            *back(look, key),
            tolerant("nft", "delete", "table", "ip", "past_vpn"),
            tolerant("ip", "rule", "del", *rule),
            tolerant("ip", "route", "flush", "table", _TABLE),
            tolerant("ip", "link", "delete", "tun-vpn0"),
        ),
    )


_ROUTED = """\
<network>
  <name>routed</name>
  <forward mode='route'/>
  <bridge name='virbr77' stp='off' delay='0'/>
  <ip address='10.77.0.1' netmask='255.255.255.0'>
    <dhcp><range start='10.77.0.10' end='10.77.0.99'/></dhcp>
  </ip>
</network>
"""

_SUBNET = "10.77.0.0/24"
_STAGE = Stage(
    what=f"a routed network whose subnet {_SUBNET} the LAN's router knows",
    check=command("test", "-e", "/run/libvirt/network/routed.xml"),
    make=(
        command("virsh", "net-define", "/dev/stdin", stdin=_ROUTED),
        command("virsh", "net-start", "routed"),
        command("ip", "route", "replace", _SUBNET, "via", t.HOST_IP, where=t.ROUTER),
    ),
)


def _route_missing(look: Look) -> Breakage:
    del look
    return Breakage(
        make=(command("ip", "route", "del", _SUBNET, where=t.ROUTER),),
        mend=(command("ip", "route", "replace", _SUBNET, "via", t.HOST_IP, where=t.ROUTER),),
    )


FAULTS = (
    Fault(
        name="ip-forward-off",
        problem="ip-forward-off",
        seen="guests reach the host and nothing beyond it",
        how="net.ipv4.ip_forward = 0",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        touches=("forwarding",),
        prepare=_forward_off,
    ),
    Fault(
        name="ip-forward-off-interface",
        problem="ip-forward-off",
        seen="guests of one network reach the host and nothing beyond it, those of others are "
        "fine; ip_forward is 1",
        how="forwarding is off on the network's bridge only",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        touches=("forwarding",),
        prepare=_interface_off,
    ),
    Fault(
        name="rp-filter",
        problem="rp-filter",
        seen="guests, which are led past the VPN, send and hear no answer from the internet",
        how="strict rp_filter on the uplink: marked packets go past the VPN, but the main table "
        "leads into it, so answers to guests seem to come in by the wrong link",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        prepare=_rp_filter,
    ),
    Fault(
        name="lan-route-missing",
        problem="lan-route-missing",
        seen="guests on the routed network reach the host; nothing on the LAN or beyond answers",
        how="a routed network whose subnet the LAN's router has no route to",
        trial=probe("network:routed", "target"),
        stages=(_STAGE,),
        prepare=_route_missing,
    ),
)
