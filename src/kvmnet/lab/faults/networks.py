"""libvirt's networks: switched off, or unable to start."""

from __future__ import annotations

import ipaddress

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    Need,
    Trial,
    attempt,
    command,
    probe,
    tolerant,
)
from kvmnet.lab.faults.libvirt_nft import network
from kvmnet.lab.faults.stages import GUEST, NETWORK, RUNNING_GUEST

_STOP = Command(argv=("virsh", "net-destroy", "default"))
_START = Command(
    argv=("virsh", "net-start", "default"),
    unless=NETWORK.check.argv,
)
_ACTIVE = attempt(*NETWORK.check.argv)


def _started(look: Look, bridge: str) -> tuple[Command, ...]:
    """Start the network and plug the taps in again that are in its bridge now."""
    taps = look.out("ls", f"/sys/class/net/{bridge}/brif").split()
    return (
        _START,
        *(tolerant("ip", "link", "set", tap, "master", bridge, "up") for tap in taps),
    )


def _inactive(look: Look) -> Breakage:
    bridge, _ = network(look)
    return Breakage(make=(_STOP,), mend=_started(look, bridge))


def _stale(look: Look) -> Breakage:
    bridge, _ = network(look)
    return Breakage(
        make=(_STOP, command("ip", "link", "add", bridge, "type", "bridge")),
        mend=(
            Command(
                argv=("ip", "link", "delete", bridge),
                accept=(0, 1),
                unless=NETWORK.check.argv,
            ),
            *_started(look, bridge),
        ),
    )


_RESOLVER_PID = "/run/kvmnet-fault-resolver.pid"


def _port_taken(look: Look) -> Breakage:
    bridge, _ = network(look)
    resolver = command(
        "dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=53",
        f"--pid-file={_RESOLVER_PID}",
    )  # fmt: skip
    return Breakage(
        make=(_STOP, resolver),
        mend=(stop_daemon(_RESOLVER_PID), *_started(look, bridge)),
    )


def stop_daemon(pid_file: str, where: str = t.HOST) -> Command:
    """End the daemon that wrote that file, and wait until it is gone."""
    script = (
        'p=$(cat "$1") && kill "$p" && '
        'for n in $(seq 200); do [ -d "/proc/$p" ] || break; sleep 0.05; done'
    )
    return tolerant("sh", "-c", script, "stop", pid_file, where=where)


_IPTABLES = "/etc/alternatives/iptables"


def _no_backend(look: Look) -> Breakage:
    bridge, _ = network(look)
    now = look.out("readlink", _IPTABLES).strip()
    return Breakage(
        make=(_STOP, command("ln", "-sfn", "/usr/sbin/iptables-that-was", _IPTABLES)),
        mend=(command("ln", "-sfn", now, _IPTABLES), *_started(look, bridge)),
    )


def _checksum(look: Look) -> Breakage:
    del look
    return Breakage(
        make=(command("nft", "-f", "-", stdin=_WRONG_SUM),),
        mend=(tolerant("nft", "delete", "table", "bridge", "wrong_sum"),),
    )


_WRONG_SUM = """\
table bridge wrong_sum {
  chain output {
    type filter hook output priority filter; policy accept;
    udp sport 67 udp checksum set 0xbad
  }
}
"""


def _published(look: Look) -> Breakage:
    address = look.address(GUEST)
    rule = ("PREROUTING", "-d", t.HOST_IP, "-p", "tcp", "--dport", str(_PORT),
            "-j", "DNAT", "--to-destination", f"{address}:80")  # fmt: skip
    nat = ("iptables", "-w", "-t", "nat")
    return Breakage(make=(command(*nat, "-A", *rule),), mend=(tolerant(*nat, "-D", *rule),))


_PORT = 8080


_TUNNEL = "tun-vpn"
"""A VPN's link. No program serves it: what is sent into it is lost."""


def _overlap(look: Look) -> Breakage:
    _, subnet = network(look)
    halves = ipaddress.ip_network(subnet).subnets()
    batch = [
        f"tuntap add dev {_TUNNEL} mode tun",
        f"address add 10.8.0.2/24 dev {_TUNNEL}",
        f"link set {_TUNNEL} up",
        *(f"route add {half} via 10.8.0.1 dev {_TUNNEL} onlink" for half in halves),
    ]
    return Breakage(
        make=(command("ip", "-batch", "-", stdin="\n".join(batch) + "\n"),),
        mend=(tolerant("ip", "link", "delete", _TUNNEL),),
    )


FAULTS = (
    Fault(
        name="network-inactive",
        problem="network-inactive",
        seen="guests can not be started: network 'default' is not active",
        how="`virsh net-destroy default`",
        trial=_ACTIVE,
        stages=(NETWORK,),
        touches=("libvirt's rules", "the network default"),
        prepare=_inactive,
    ),
    Fault(
        name="stale-bridge",
        problem="stale-bridge",
        seen="the network default can not be started: its bridge exists already",
        how="the network is stopped, and a bridge of its name without ports is left behind",
        trial=_ACTIVE,
        stages=(NETWORK,),
        touches=("libvirt's rules", "the network default"),
        prepare=_stale,
    ),
    Fault(
        name="dns-port-taken",
        problem="dns-port-taken",
        seen="the network default can not be started: dnsmasq failed to create a listening "
        "socket, address already in use",
        how="another dnsmasq listens on port 53 of all addresses",
        trial=_ACTIVE,
        stages=(NETWORK,),
        touches=("libvirt's rules", "the network default"),
        prepare=_port_taken,
    ),
    Fault(
        name="firewall-backend",
        problem="firewall-backend",
        seen="the network default can not be started: Failed to apply firewall rules",
        how="the program iptables, which libvirt uses here, is not there any more",
        trial=_ACTIVE,
        stages=(NETWORK,),
        needs=(Need(what=f"the link {_IPTABLES}", check=command("test", "-L", _IPTABLES)),),
        touches=("libvirt's rules", "the network default"),
        prepare=_no_backend,
    ),
    Fault(
        name="bad-checksum",
        problem="bad-checksum",
        stubborn=True,
        seen="some guests get no address: their DHCP client says `bad udp cksum` and drops the "
        "offers",
        how="the DHCP server's packets reach the guests with a wrong UDP checksum",
        trial=probe("network:default", "dhcp"),
        stages=(NETWORK,),
        prepare=_checksum,
    ),
    Fault(
        name="publish-rejected",
        problem="publish-rejected",
        also=("publish-incomplete",),
        seen="a port that was forwarded to a guest is refused when it is tried from the LAN",
        how="half a port forward: the destination is rewritten, and then libvirt's own rule "
        "rejects what is new from outside",
        trial=Trial(
            command=lambda look: command(
                *("busybox", "nc", "-w", "3", t.HOST_IP, str(_PORT), "-e", "true"), where=t.PEER
            ),
            gone=True,
        ),
        stages=(NETWORK, RUNNING_GUEST),
        prepare=_published,
    ),
    Fault(
        name="subnet-overlap",
        problem="subnet-overlap",
        seen="since the VPN is up guests have an address but nothing answers them, not even "
        "the host",
        how="a VPN's routes cover the network's subnet, so answers to guests go into its tunnel",
        trial=probe("network:default", "host"),
        stages=(NETWORK,),
        prepare=_overlap,
    ),
)
