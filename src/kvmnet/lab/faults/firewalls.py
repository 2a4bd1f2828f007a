"""Firewalls that people put on their hosts, and firewalls that are gone."""

from __future__ import annotations

from kvmnet.lab.faults.fault import Breakage, Fault, Look, always, command, probe, tolerant
from kvmnet.lab.faults.libvirt_nft import as_now
from kvmnet.lab.faults.stages import NETWORK

_INPUT = """\
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    iifname "eth1" meta l4proto { icmp, ipv6-icmp } accept
    iifname "br0" meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 22 accept
  }
}
"""
_FORWARD = """\
table inet my_firewall {
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
"""


def _flushed(look: Look) -> Breakage:
    return Breakage(make=(command("nft", "flush", "ruleset"),), mend=as_now(look))


FAULTS = (
    Fault(
        name="input-drop-dhcp",
        problem="input-drop-dhcp",
        seen="guests on a NAT network get no address at all",
        how="an nftables.conf whose input chain lets in ssh and drops the rest; libvirt's own "
        "accept stands in another chain and does not help",
        trial=probe("network:default", "dhcp"),
        stages=(NETWORK,),
        prepare=always(
            make=(command("nft", "-f", "-", stdin=_INPUT),),
            mend=(tolerant("nft", "delete", "table", "inet", "filter"),),
        ),
    ),
    Fault(
        name="firewall-drop",
        problem="firewall-drop",
        seen="guests on a NAT network get an address and names, but reach nothing beyond the host",
        how="an nftables.conf whose forward chain has the policy drop",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        prepare=always(
            make=(command("nft", "-f", "-", stdin=_FORWARD),),
            mend=(tolerant("nft", "delete", "table", "inet", "my_firewall"),),
        ),
    ),
    Fault(
        name="firewall-flushed",
        problem="firewall-flushed",
        kept=True,
        seen="guests on a NAT network have an address but no internet since the firewall was "
        "loaded anew",
        how="`nft flush ruleset`: libvirt's masquerading is gone, and libvirt does not know",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        touches=("libvirt's rules",),
        prepare=_flushed,
    ),
)
