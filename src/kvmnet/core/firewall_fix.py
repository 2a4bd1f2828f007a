"""How people let guests' packets through, in the words of the program that drops them."""

from __future__ import annotations

from collections.abc import Sequence

from kvmnet.core.finding import command
from kvmnet.core.firewall import Decision, Passage
from kvmnet.core.firewall_evidence import decided_by
from kvmnet.core.firewall_makers import FIREWALLD, UFW
from kvmnet.core.openings import DOCKER_USER
from kvmnet.model.opening import Opening
from kvmnet.model.state import State


def commands(
    passages: tuple[Passage, ...], openings: tuple[Opening, ...], bridge: str, *, bridged: bool
) -> tuple[str, ...]:
    """Commands that let these packets through every chain that drops them, each once."""
    found: dict[str, None] = {}
    done: set[tuple[str, str, str]] = set()
    for passage in passages:
        for drop in passage.drops:
            who = decided_by(drop)
            lines = _by_program(who, passage, bridge, bridged=bridged)
            found.update(dict.fromkeys(lines))
            if lines:
                done.add(_base(drop))
    for opening in openings:
        if (opening.family, opening.table, opening.backend) not in done:
            found[opening_command(opening)] = None
    return tuple(found)


def _base(drop: Decision) -> tuple[str, str, str]:
    return (drop.base.family, drop.base.table, drop.base.backend)


def _by_program(who: str, passage: Passage, bridge: str, *, bridged: bool) -> tuple[str, ...]:
    """ufw and firewalld keep rules of their own, which rules beside them would not outlast."""
    if who == UFW and bridged:
        return (command("ufw", "route", "allow", "in", "on", bridge, "out", "on", bridge),)
    if who == UFW and passage.packet.hook == "forward":
        return (command("ufw", "route", "allow", "in", "on", bridge),
                command("ufw", "route", "allow", "out", "on", bridge))  # fmt: skip
    if who == UFW:
        return (command("ufw", "allow", "in", "on", bridge),)
    if who == FIREWALLD and bridged:
        family = "ipv6" if passage.packet.family == "ip6" else "ipv4"
        direct = ("--direct", "--add-passthrough", family, "-I", "FORWARD", "-i", bridge,
                  "-o", bridge, "-j", "ACCEPT")  # fmt: skip
        return (command("firewall-cmd", "--permanent", *direct), command("firewall-cmd", *direct))
    if who == FIREWALLD:
        zone = ("--zone=libvirt", f"--change-interface={bridge}")
        return (command("firewall-cmd", "--permanent", *zone), command("firewall-cmd", *zone))
    return ()


def opening_command(opening: Opening) -> str:
    """The command that makes an opening by hand, without the mark that kvmnet's own have."""
    if opening.backend == "nft":
        words = ["nft", "insert", "rule", opening.family, opening.table, opening.chain]
        words += [] if opening.iif is None else ["iifname", opening.iif]
        words += [] if opening.oif is None else ["oifname", opening.oif]
        if opening.destination is not None:
            words += ["ip6" if ":" in opening.destination else "ip", "daddr", opening.destination]
        words += ["ct", "state", "established,related"] if opening.established else []
        if opening.protocol is not None and opening.dport is not None:
            words += [opening.protocol, "dport", str(opening.dport)]
        elif opening.protocol is not None:
            words += ["meta", "l4proto", opening.protocol]
        return command(*words, "accept")
    program = "ip6tables" if opening.family == "ip6" else "iptables"
    words = [program if opening.backend == "iptables-nft" else f"{program}-legacy"]
    words += ["-t", opening.table] if opening.table != "filter" else []
    words += ["-I", opening.chain]
    words += [] if opening.iif is None else ["-i", opening.iif]
    words += [] if opening.oif is None else ["-o", opening.oif]
    words += [] if opening.destination is None else ["-d", opening.destination]
    words += [] if opening.protocol is None else ["-p", opening.protocol]
    words += [] if opening.dport is None else ["--dport", str(opening.dport)]
    if opening.established:
        words += ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return command(*words, "-j", "ACCEPT")


def in_docker_user(openings: Sequence[Opening]) -> tuple[Opening, ...]:
    """Those in the chain that Docker leaves to people."""
    return tuple(x for x in openings if x.chain == DOCKER_USER)


def not_docker(openings: Sequence[Opening]) -> tuple[Opening, ...]:
    return tuple(x for x in openings if x.chain != DOCKER_USER)


def keep_in_docker(openings: Sequence[Opening]) -> str:
    """How long openings in DOCKER-USER last, and what makes them again.

    Docker makes the chain where there is none, and neither empties nor removes it (moby,
    libnetwork: setupUserChain); so a boot takes its rules, and a file that is loaded before Docker
    starts meets no such chain.
    """
    lines = "; ".join(map(opening_command, openings))
    return (
        "last until the next boot (Docker itself leaves that chain alone); to keep them: a "
        "systemd unit (Type=oneshot, After=docker.service, "
        f"WantedBy=multi-user.target) that runs: {lines}"
    )


def own_file(openings: Sequence[Opening]) -> str:
    """Where rules of that kind are usually loaded from at boot."""
    if any(x.backend == "nft" for x in openings):
        return "/etc/nftables.conf"
    families = dict.fromkeys("6" if x.family == "ip6" else "4" for x in openings)
    files = " and ".join(f"/etc/iptables/rules.v{x}" for x in families)
    return f"{files} (package iptables-persistent)"


def how_to_keep(state: State, openings: Sequence[Opening]) -> tuple[str, ...]:
    """Openings are in the running ruleset only; whoever loads it anew has to know of them."""
    docker, openings = in_docker_user(openings), not_docker(openings)
    ports = [opening_command(x) for x in openings if x.destination is not None]
    told = [f"the openings in {DOCKER_USER} {keep_in_docker(docker)}"] if docker else []
    told += (
        "the opening for a published port lasts until the firewall is loaded anew or libvirt "
        f"writes its rules again; its hook /etc/libvirt/hooks/network can do: {x}" for x in ports
    )  # fmt: skip
    bridge = next((o.iif or o.oif for o in openings if o.destination is None), None)
    if bridge is None:
        return tuple(told)
    ways = []
    if "ufw" in state.firewall.front_ends:
        ways.append(
            f"ufw allow in on {bridge}; ufw route allow in on {bridge}; "
            f"ufw route allow out on {bridge}"
        )
    if "firewalld" in state.firewall.front_ends:
        ways.append(f"firewall-cmd --permanent --zone=libvirt --add-interface={bridge}")
    if not ways:
        ways.append(f"put the rules marked kvmnet into its own file, often {own_file(openings)}")
    return *told, *(
        f"the openings last until the firewall is loaded anew; to keep them: {way}" for way in ways
    )
