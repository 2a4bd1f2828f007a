"""Check of who holds the ports that a network's own DNS and DHCP server needs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.core import mending
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.network_plan import orphaned_taps
from kvmnet.model.host import Listener
from kvmnet.model.state import State
from kvmnet.model.virt import Network

DNS, DHCP = 53, 67
_ANY4, _ANY6 = "0.0.0.0", "::"
_RESOLVERS = ("named", "bind9", "dnsmasq", "unbound", "adguardhome", "pihole-ftl", "pdns",
              "coredns", "kresd", "isc-dhcp-server", "kea-dhcp4")  # fmt: skip


def dns_port_taken(state: State) -> Iterator[Finding]:
    """Somebody holds the ports of a network that is off, so it can't start; or the other way round.

    Measured with dnsmasq 2.90: TCP 53 on all addresses always stops it, UDP only where the other
    socket was bound without SO_REUSEADDR.
    """
    wanted = {x.source for g in state.guests for x in g.nics if x.type == "network"}
    for network in state.networks:
        config = network.saved
        if network.active or config is None or not config.ips or config.mode == "bridge":
            continue
        ports = {DNS} if config.dns else set[int]()
        ports |= {DHCP} if any(x.ranges or x.reservations for x in config.ips) else set()
        addresses = {str(x.address) for x in config.ips}
        holders = [x for x in state.listeners if x.port in ports
                   and _clashes(x, addresses, config.bridge, state.listeners)]  # fmt: skip
        if holders:
            sure = any(x.protocol == "tcp" or x.process == "dnsmasq" for x in holders)
            used = network.autostart or network.name in wanted
            found = _taken(network, holders, sure=sure and used)
            # Where it is not sure that the server fails, starting it is worth a try.
            start = (mending.start_network(network.name, orphaned_taps(state, network)),)
            yield found if sure or not used else msgspec.structs.replace(found, mend=start)
    yield from _blocked_resolvers(state)


def _clashes(
    holder: Listener, addresses: set[str], bridge: str | None, every: tuple[Listener, ...]
) -> bool:
    """Whether the socket is bound to what the network's server would bind."""
    if holder.link is not None and holder.link != bridge:
        return False
    if holder.ip == _ANY6 and any(":" not in x for x in addresses):
        # A socket for both families, unless its owner has one for IPv4 beside it.
        beside = any(x.ip == _ANY4 and (x.pid, x.port, x.protocol)
                     == (holder.pid, holder.port, holder.protocol) for x in every)  # fmt: skip
        return not beside
    return holder.ip == _ANY4 or holder.ip in addresses


def _taken(network: Network, holders: list[Listener], *, sure: bool) -> Finding:
    names = some(x.process or "somebody" for x in holders)
    port = some(str(x.port) for x in holders)
    bridge = (network.saved.bridge if network.saved is not None else None) or "virbr0"
    return Finding(
        name="dns-port-taken", severity="problem" if sure else "warning",
        subject=f"network {network.name}",
        what=f"{names} holds port {port} on all addresses, so it can not start",
        breaks=f"guests on the network {network.name} can not start",
        evidence=(*map(_shown, holders), f"the network {network.name} is not active"),
        fix=(*_making_room(holders, bridge), command("kvmnet", "network", "start", network.name)),
    )  # fmt: skip


def _shown(holder: Listener) -> str:
    who = f"{holder.process} (pid {holder.pid})" if holder.process else "not seen (needs root)"
    host = f"[{holder.ip}]" if ":" in holder.ip else holder.ip
    return f"ss -lnptu: {holder.protocol} {host}:{holder.port} {who}"


def _making_room(holders: list[Listener], bridge: str) -> tuple[str, ...]:
    """How the holder lets go of addresses that are not its own, where that is one known way."""
    if not any(x.process == "dnsmasq" for x in holders):
        return ()
    lines = command(f"except-interface={bridge}", "bind-interfaces")
    return (
        f"printf '%s\\n' {lines} | tee /etc/dnsmasq.d/libvirt-bridges.conf",
        "systemctl restart dnsmasq",
    )


def _blocked_resolvers(state: State) -> Iterator[Finding]:
    """A resolver that could not start, and libvirt's dnsmasq on the port that it wants."""
    served = {
        str(ip.address): network.name
        for network in state.networks
        if network.live is not None
        for ip in network.live.ips
    }
    held = [x for x in state.listeners if x.ip in served and x.port == DNS]
    failed = [x for x in state.failed_units or () if x.lower().startswith(_RESOLVERS)]
    for unit in failed if held else ():
        yield Finding(
            name="resolver-blocked", severity="warning", subject=f"service {unit}",
            what=f"it has failed, and libvirt holds port {DNS} on {some(x.ip for x in held)}: a "
            "server that wants port 53 on all addresses can not start",
            breaks="whoever asks that server for names",
            evidence=(f"systemctl status {unit}: failed",
                      *(_shown(x) for x in held if x.protocol == "tcp")),
            fix=(command("journalctl", "-u", unit, "-n", "20"),
                 *(command("virsh", "net-edit", served[held[0].ip]),)),
        )  # fmt: skip
