"""What stands on the LAN and beyond it, where no look at the host helps."""

from __future__ import annotations

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import Fault, always, command, probe, tolerant
from kvmnet.lab.faults.networks import stop_daemon
from kvmnet.lab.faults.stages import BRIDGE

_PORT_SECURITY = f"""\
table netdev port_security {{
  chain from_host {{
    type filter hook ingress device "sw-host" priority 0; policy accept;
    ether saddr != {t.HOST_MAC} counter drop
  }}
}}
"""
_SILENT_ROUTER = """\
table ip black_hole {
  chain output {
    type filter hook output priority filter; policy accept;
    icmp type destination-unreachable icmp code frag-needed counter drop
  }
}
"""
_SMALL_MTU = 1380
_ROGUE_PID = "/run/kvmnet-fault-rogue.pid"
_ROGUE = (
    "dnsmasq", "--conf-file=/dev/null", "--port=0", "--no-ping", "--bind-interfaces",
    f"--interface={t.PEER_NIC}", "--dhcp-authoritative",
    "--dhcp-range=192.168.77.210,192.168.77.219,2m", f"--dhcp-option=3,{t.PEER_IP}",
    "--dhcp-leasefile=/run/kvmnet-fault-rogue.leases", f"--pid-file={_ROGUE_PID}",
)  # fmt: skip

FAULTS = (
    Fault(
        name="mac-locked-uplink",
        problem="mac-locked-uplink",
        seen="guests on the bridge get no address from the LAN, while the host is fine",
        how="the switch lets only the host's own MAC address in, as hosters and outer "
        "hypervisors do",
        trial=probe("bridge:br0", "dhcp"),
        stages=(BRIDGE,),
        prepare=always(
            make=(command("nft", "-f", "-", stdin=_PORT_SECURITY, where=t.ROUTER),),
            mend=(tolerant("nft", "delete", "table", "netdev", "port_security",
                           where=t.ROUTER),),
        ),
    ),
    Fault(
        name="rogue-dhcp",
        problem="rogue-dhcp",
        seen="some guests on the bridge get an odd address and a gateway that leads nowhere, "
        "others are fine",
        how="a second DHCP server on the LAN, at the peer, names itself as the router",
        trial=probe("bridge:br0", "dhcp-servers"),
        stages=(BRIDGE,),
        prepare=always(
            make=(command(*_ROGUE, where=t.PEER),),
            mend=(stop_daemon(_ROGUE_PID, t.PEER),),
        ),
    ),
    Fault(
        name="mtu-black-hole",
        problem="mtu-black-hole",
        seen="guests' and the host's connections open and then hang, small packets come through",
        how=f"the switch carries frames of {_SMALL_MTU} bytes at most and drops larger ones in "
        "silence, as overlay networks of hosters do",
        trial=probe("bridge:br0", "path-mtu", to=t.ROUTER_IP),
        stages=(BRIDGE,),
        touches=("the MTU of the way out",),
        prepare=always(
            make=(command("ip", "link", "set", "sw-host", "mtu", str(_SMALL_MTU), where=t.ROUTER),),
            mend=(
                command("ip", "link", "set", "sw-host", "mtu", "1500", where=t.ROUTER),
                command("ip", "link", "set", t.LAN_BRIDGE, "mtu", "1500", where=t.ROUTER),
            ),
        ),
    ),
    Fault(
        name="mtu-black-hole-beyond",
        problem="mtu-black-hole",
        blind="it sends nothing beyond the host's gateway; `kvmnet probe --to` does",
        seen="pages begin to load and hang, ssh connects and stands still; pings are fine",
        how=f"behind the router the MTU is {_SMALL_MTU}, and its ICMP that says so is filtered",
        trial=probe("bridge:br0", "path-mtu"),
        stages=(BRIDGE,),
        touches=("the MTU of the way out",),
        prepare=always(
            make=(
                command("ip", "link", "set", "wan0", "mtu", str(_SMALL_MTU), where=t.ROUTER),
                command("nft", "-f", "-", stdin=_SILENT_ROUTER, where=t.ROUTER),
            ),
            mend=(
                command("ip", "link", "set", "wan0", "mtu", "1500", where=t.ROUTER),
                tolerant("nft", "delete", "table", "ip", "black_hole", where=t.ROUTER),
            ),
        ),
    ),
)  # fmt: skip
