"""The firewall rules of a NAT network as libvirt 10.4 and newer write them, in a table of its own.

Older ones, as Debian 12's, use iptables: their accepts stand in the same chains as those of ufw and
Docker, and come first. What people meet with newer ones is made by putting the new rules in the
place of the old. libvirt itself does not write its old ones again once its chains are gone, unless
it is restarted, so they are kept as they were and loaded.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

from kvmnet.errors import Failed
from kvmnet.lab.faults.fault import Command, Look, command, tolerant

_JUMPS = (
    ("filter", "INPUT", "LIBVIRT_INP"),
    ("filter", "OUTPUT", "LIBVIRT_OUT"),
    ("filter", "FORWARD", "LIBVIRT_FWO"),
    ("filter", "FORWARD", "LIBVIRT_FWI"),
    ("filter", "FORWARD", "LIBVIRT_FWX"),
    ("nat", "POSTROUTING", "LIBVIRT_PRT"),
    ("mangle", "POSTROUTING", "LIBVIRT_PRT"),
)


def without_iptables_rules() -> tuple[Command, ...]:
    """Take out the rules that this libvirt has written with iptables, for both families."""
    lines = [
        (family, table, *words)
        for family in ("iptables", "ip6tables")
        for verb in ("-D", "-F", "-X")
        for table, hook, chain in _JUMPS
        for words in (((verb, hook, "-j", chain),) if verb == "-D" else ((verb, chain),))
    ]
    return tuple(tolerant(family, "-w", "-t", table, *words) for family, table, *words in lines)


def as_new_libvirt(look: Look) -> tuple[Command, ...]:
    """Put the rules of all networks as newer libvirts write them into the place of these."""
    names = look.out("virsh", "net-list", "--name").split()
    chains = "".join(_CHAINS.format(family=x) for x in ("ip", "ip6"))
    rules = chains + "".join(_rules(*network(look, x), nat=_is_nat(look, x)) for x in names)
    return (*without_iptables_rules(), command("nft", "-f", "-", stdin=rules))


def _is_nat(look: Look, name: str) -> bool:
    return "<forward mode='nat'" in look.out("virsh", "net-dumpxml", name)


def as_this_libvirt(look: Look) -> tuple[Command, ...]:
    """Back from there to the rules that stand now."""
    return (
        tolerant("nft", "delete", "table", "ip", "libvirt_network"),
        tolerant("nft", "delete", "table", "ip6", "libvirt_network"),
        *as_now(look),
    )


def as_now(look: Look) -> tuple[Command, ...]:
    """The rules that this libvirt has written, as they are now, however often it is run."""
    return tuple(x for family in ("iptables", "ip6tables") for x in _restored(look, family))


def _restored(look: Look, family: str) -> Iterator[Command]:
    table, lines, jumps = "", [], []
    for line in look.out(f"{family}-save").splitlines():
        table = line[1:] if line.startswith("*") else table
        if line.startswith((":LIBVIRT_", "-A LIBVIRT_", "*", "COMMIT")):
            lines.append(line)
        elif line.startswith("-A ") and " -j LIBVIRT_" in line:
            jumps.append((table, line.split()[1:]))
    if not jumps:
        return
    # A chain that is declared is emptied first, all others keep what they have (--noflush).
    yield command(f"{family}-restore", "--noflush", stdin="\n".join(lines) + "\n")
    for table, words in reversed(jumps):
        yield Command(
            argv=(family, "-w", "-t", table, "-I", *words),
            unless=(family, "-w", "-t", table, "-C", *words),
        )


def network(look: Look, name: str = "default") -> tuple[str, str]:
    """Bridge and IPv4 subnet of a network."""
    words = look.out("virsh", "net-info", name).split()
    bridge = words[words.index("Bridge:") + 1]
    listing = json.loads(look.out("ip", "-j", "-4", "address", "show", "dev", bridge))
    for entry in (x for link in listing for x in link.get("addr_info", ())):
        address = f"{entry['local']}/{entry['prefixlen']}"
        return bridge, str(ipaddress.ip_interface(address).network)
    raise Failed(f"the bridge {bridge} of the network {name} has no IPv4 address")


_CHAINS = """\
table {family} libvirt_network {{
  chain guest_cross {{ }}
  chain guest_input {{ }}
  chain guest_output {{ }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    counter jump guest_cross
    counter jump guest_input
    counter jump guest_output
  }}
  chain guest_nat {{
    type nat hook postrouting priority srcnat; policy accept;
  }}
}}
"""


def _rules(bridge: str, subnet: str, *, nat: bool) -> str:
    known = "ct state established,related " if nat else ""
    away = f"ip saddr {subnet} ip daddr != {subnet} counter masquerade"
    lines = [
        f'ip guest_cross iif "{bridge}" oif "{bridge}" counter accept',
        f'ip guest_input oif "{bridge}" ip daddr {subnet} {known}counter accept',
        f'ip guest_input oif "{bridge}" counter reject',
        f'ip guest_output ip saddr {subnet} iif "{bridge}" counter accept',
        f'ip guest_output iif "{bridge}" counter reject',
        f'ip6 guest_cross iif "{bridge}" oif "{bridge}" counter accept',
        f'ip6 guest_input oif "{bridge}" counter reject',
        f'ip6 guest_output iif "{bridge}" counter reject',
    ]
    if nat:
        lines += [
            f"ip guest_nat ip saddr {subnet} ip daddr 224.0.0.0/24 counter return",
            f"ip guest_nat ip saddr {subnet} ip daddr 255.255.255.255 counter return",
            *(f"ip guest_nat meta l4proto {x} {away} to :1024-65535" for x in ("tcp", "udp")),
            f"ip guest_nat {away}",
        ]
    added = (line.replace(" guest_", " libvirt_network guest_", 1) for line in lines)
    return "".join(f"add rule {line}\n" for line in added)
