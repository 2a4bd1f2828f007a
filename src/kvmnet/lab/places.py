"""The lab's places: a network namespace each, held open by a process, joined to a small LAN.

Called by the lab's init; pids here are those inside the lab.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kvmnet.adapters.run import PIPE, Completed, Running, run, spawn
from kvmnet.errors import Failed
from kvmnet.lab import topology as t

FILES = Path(__file__).parent / "files"


class Places:
    """The namespaces of all places while the lab is being built."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def make(self) -> None:
        """Make the namespaces and their holders."""
        holders = []
        for where in t.PLACES:
            run(["ip", "netns", "add", where])
            _write_etc(where)
            holders.append((where, self._hold(where)))
        for where, holder in holders:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                raise Failed(f"the lab's place {where} could not be made", why="see the lab's log")
            holder.stdout.close()
            self.pids[where] = holder.pid

    def _hold(self, where: str) -> Running:
        script = str(FILES / "holder.sh")
        return spawn(
            ["nsenter", f"--net=/run/netns/{where}", "unshare", "--mount", "--uts",
             "/bin/sh", script, where],
            stdout=PIPE, stderr=sys.stderr.buffer,
        )  # fmt: skip

    def inside(self, where: str, *argv: str) -> list[str]:
        """The command line that runs `argv` in that place."""
        return ["nsenter", "-t", str(self.pids[where]), "-m", "-n", "-u", "--", *argv]

    def joined(self, where: str, *argv: str) -> list[str]:
        """The same with only the network of that place, for daemons that read files of the init."""
        return ["nsenter", "-t", str(self.pids[where]), "-n", "--", *argv]

    def run(
        self,
        where: str,
        *argv: str,
        stdin: str = "",
        timeout: float = 10,
        accept: Sequence[int] = (0,),
    ) -> Completed:
        return run(self.inside(where, *argv), stdin=stdin, timeout=timeout, accept=accept)

    def spawn(self, where: str, *argv: str) -> Running:
        """Start a daemon there; what it says goes to the lab's log."""
        return daemon(self.inside(where, *argv))

    def ip(self, where: str, *lines: str) -> None:
        """Run `ip` commands in one batch."""
        run(["ip", "-n", where, "-batch", "-"], stdin="\n".join(lines) + "\n")

    def sysctl(self, where: str, **settings: int) -> None:
        """Set kernel settings below /proc/sys/net; `__` stands for the slash in their names."""
        lines = [
            f"echo {value} > /proc/sys/net/{key.replace('__', '/')}"
            for key, value in settings.items()
        ]
        self.run(where, "/bin/sh", "-e", stdin="\n".join(lines) + "\n")


def daemon(argv: Sequence[str]) -> Running:
    """Start a program for the life of the lab; what it says goes to the lab's log (stderr)."""
    return spawn(argv, stdout=sys.stderr.buffer, stderr=sys.stderr.buffer, new_session=True)


def _write_etc(where: str) -> None:
    folder = Path("/run/lab") / where
    folder.mkdir()
    (folder / "hostname").write_text(f"{where}\n")
    hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {where}\n"
    (folder / "hosts").write_text(hosts)
    dns = t.WEB_IP if where == t.INTERNET else t.ROUTER_IP
    search = f"search {t.LAN_DOMAIN}\n" if where != t.INTERNET else ""
    (folder / "resolv.conf").write_text(f"{search}nameserver {dns}\n")


def connect(places: Places) -> None:
    """Make the links, addresses and routes of all places; the LAN's members stay down."""
    for where in t.PLACES:
        _defaults(places, where)
    places.ip(
        t.ROUTER,
        "link set lo up",
        f"link add {t.LAN_BRIDGE} address {t.ROUTER_MAC} type bridge stp_state 0 forward_delay 0",
        f"link add sw-host type veth peer name {t.HOST_NIC} address {t.HOST_MAC} netns {t.HOST}",
        f"link add sw-peer type veth peer name {t.PEER_NIC} address {t.PEER_MAC} netns {t.PEER}",
        f"link add wan0 type veth peer name eth0 netns {t.INTERNET}",
        f"link set sw-host master {t.LAN_BRIDGE} up",
        f"link set sw-peer master {t.LAN_BRIDGE} up",
        f"link set {t.LAN_BRIDGE} up",
        "link set wan0 up",
        f"address add {t.ROUTER_IP}/{t.LAN_PREFIX_LEN} dev {t.LAN_BRIDGE}",
        f"address add {t.ROUTER_IP6}/64 dev {t.LAN_BRIDGE} nodad",
        f"address add {t.WAN_ROUTER_IP}/{t.WAN_PREFIX_LEN} dev wan0",
        f"address add {t.WAN_ROUTER_IP6}/64 dev wan0 nodad",
        f"route add default via {t.WAN_INTERNET_IP} dev wan0",
        f"route add ::/0 via {t.WAN_INTERNET_IP6} dev wan0",
    )
    places.ip(
        t.INTERNET,
        "link set lo up",
        "link set eth0 up",
        f"address add {t.WEB_IP}/32 dev lo",
        f"address add {t.WEB_IP6}/128 dev lo nodad",
        f"address add {t.WAN_INTERNET_IP}/{t.WAN_PREFIX_LEN} dev eth0",
        f"address add {t.WAN_INTERNET_IP6}/64 dev eth0 nodad",
        f"route add {t.LAN_SUBNET6} via {t.WAN_ROUTER_IP6} dev eth0",
    )
    places.run(t.ROUTER, "nft", "-f", "-", stdin=_ROUTER_FIREWALL)
    places.sysctl(t.ROUTER, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    # It answers "unreachable" for what nobody has, as the internet's routers do.
    places.sysctl(t.INTERNET, ipv4__ip_forward=1)
    for where, nic in ((t.HOST, t.HOST_NIC), (t.PEER, t.PEER_NIC)):
        # No second of waiting for duplicate addresses and router advertisements at the start.
        places.sysctl(
            where,
            **{f"ipv6__conf__{nic}__accept_dad": 0, f"ipv6__conf__{nic}__dad_transmits": 0,
               f"ipv6__conf__{nic}__router_solicitation_delay": 0},
        )  # fmt: skip
        places.ip(where, "link set lo up")


def _defaults(places: Places, where: str) -> None:
    """What a fresh host has; new network namespaces inherit some of it from the machine."""
    places.sysctl(
        where,
        ipv4__ip_forward=0,
        ipv4__conf__all__rp_filter=0,
        ipv4__conf__default__rp_filter=2,
        ipv6__conf__all__disable_ipv6=0,
        ipv6__conf__default__disable_ipv6=0,
        ipv6__conf__all__forwarding=0,
    )
    bridge = "/proc/sys/net/bridge"
    script = f"for f in {bridge}/bridge-nf-call-*; do if [ -e $f ]; then echo 0 > $f; fi; done"
    places.run(where, "/bin/sh", "-ec", script)


_ROUTER_FIREWALL = f"""\
table inet home {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "{t.LAN_BRIDGE}" accept
    meta l4proto ipv6-icmp accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta nfproto ipv4 oifname "wan0" masquerade
  }}
}}
"""
