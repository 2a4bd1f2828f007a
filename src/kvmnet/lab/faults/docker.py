"""Docker beside guests: its rules as Docker 28 writes them with iptables, in both families."""

from __future__ import annotations

from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    back,
    command,
    probe,
    set_sysctl,
    tolerant,
)
from kvmnet.lab.faults.libvirt_nft import as_new_libvirt, as_this_libvirt
from kvmnet.lab.faults.stages import BRIDGE, BRIDGE_FIREWALL, NETWORK

_CHAINS = (
    "DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1",
    "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER",
)  # fmt: skip
_OWN_RULES = (
    "-A DOCKER ! -i docker0 -o docker0 -j DROP",
    "-A DOCKER-BRIDGE -o docker0 -j DOCKER",
    "-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A DOCKER-FORWARD -j DOCKER-CT",
    "-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A DOCKER-FORWARD -j DOCKER-BRIDGE",
    "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
    "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2",
    "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
)
_HOOKS = ("FORWARD -j DOCKER-FORWARD", "FORWARD -j DOCKER-USER")
"""Inserted at the top, one after the other: DOCKER-USER comes first."""
_NAT_HOOKS = {
    "iptables": (
        "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
        "POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    ),
    "ip6tables": (
        "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
    ),
}

_BRIDGE = (
    "link add docker0 type bridge",
    "address add 172.17.0.1/16 brd 172.17.255.255 dev docker0",
    "link set docker0 up",
)


def docker_rules() -> tuple[Command, ...]:
    """What dockerd does to a host when it starts and had to switch forwarding on itself."""
    batch = command("ip", "-batch", "-", stdin="\n".join(_BRIDGE) + "\n")
    return (batch, *(x for family in _NAT_HOOKS for x in _start(family)))


def _start(family: str) -> tuple[Command, ...]:
    lines = [
        "*filter",
        *(f":{chain} - [0:0]" for chain in _CHAINS),
        *_OWN_RULES,
        *(f"-I {rule}" for rule in _HOOKS),
        "COMMIT",
        "*nat",
        ":DOCKER - [0:0]",
        *(f"-A {rule}" for rule in _NAT_HOOKS[family]),
        *(("-A DOCKER -i docker0 -j RETURN",) if family == "iptables" else ()),
        "COMMIT",
    ]
    restore = command(f"{family}-restore", "--noflush", stdin="\n".join(lines) + "\n")
    return restore, command(family, "-w", "-P", "FORWARD", "DROP")


def no_docker(look: Look) -> tuple[Command, ...]:
    """The end of Docker's rules and its bridge; the policies become what they are now."""
    return (
        *(x for family in _NAT_HOOKS for x in _stop(family, _policy(look, family))),
        tolerant("ip", "link", "delete", "docker0"),
    )


def _policy(look: Look, family: str) -> str:
    words = look.out(family, "-w", "-S", "FORWARD").split()
    return words[words.index("FORWARD") + 1]


def _stop(family: str, policy: str) -> tuple[Command, ...]:
    jumps = [("filter", rule) for rule in _HOOKS] + [("nat", rule) for rule in _NAT_HOOKS[family]]
    chains = [("filter", chain) for chain in _CHAINS] + [("nat", "DOCKER")]
    return (
        command(family, "-w", "-P", "FORWARD", policy),
        *(tolerant(family, "-w", "-t", table, "-D", *rule.split()) for table, rule in jumps),
        *(tolerant(family, "-w", "-t", table, verb, chain)
          for verb in ("-F", "-X") for table, chain in chains),
    )  # fmt: skip


def _nat(look: Look) -> Breakage:
    return Breakage(
        make=(*as_new_libvirt(look), *docker_rules()),
        mend=(*no_docker(look), *as_this_libvirt(look)),
    )


_CALL = "net/bridge/bridge-nf-call-iptables"
_CALL6 = "net/bridge/bridge-nf-call-ip6tables"


def _bridged(look: Look) -> Breakage:
    return Breakage(
        make=(*docker_rules(), set_sysctl(_CALL, "1"), set_sysctl(_CALL6, "1")),
        mend=(*back(look, _CALL, _CALL6), *no_docker(look)),
    )


def _bridged6(look: Look) -> Breakage:
    allow = ("DOCKER-USER", "-i", "br0", "-o", "br0", "-j", "ACCEPT")
    plain = _bridged(look)
    return Breakage(make=(*plain.make, command("iptables", "-w", "-I", *allow)), mend=plain.mend)


FAULTS = (
    Fault(
        name="docker-forward-drop",
        problem="docker-forward-drop",
        seen="since Docker was installed guests on a NAT network get an address and names, but "
        "reach nothing beyond the host",
        how="Docker's rules with the FORWARD policy DROP, beside the table that libvirt writes "
        "since 10.4, whose accept does not help",
        trial=probe("network:default", "target"),
        stages=(NETWORK,),
        touches=("Docker's rules", "libvirt's rules"),
        prepare=_nat,
    ),
    Fault(
        name="docker-forward-drop-bridged",
        problem="docker-forward-drop",
        seen="since Docker was installed guests on the bridge reach nobody, not even for an "
        "address, while the host is fine",
        how="Docker's rules with the FORWARD policy DROP, and br_netfilter shows them what is "
        "bridged",
        trial=probe("bridge:br0", "dhcp"),
        stages=(BRIDGE,),
        touches=("Docker's rules", "bridge-nf-call"),
        needs=(BRIDGE_FIREWALL,),
        prepare=_bridged,
    ),
    Fault(
        name="docker-forward-drop-ipv6",
        problem="docker-forward-drop",
        seen="guests on the bridge have IPv4 but no IPv6, though their traffic was let through "
        "Docker's rules",
        how="Docker's rules and br_netfilter, with an accept in DOCKER-USER for IPv4 only",
        trial=probe("bridge:br0", "ipv6"),
        stages=(BRIDGE,),
        touches=("Docker's rules", "bridge-nf-call"),
        needs=(BRIDGE_FIREWALL,),
        prepare=_bridged6,
    ),
)
