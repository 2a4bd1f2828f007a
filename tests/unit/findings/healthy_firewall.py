"""Rulesets as libvirt, Docker and ufw write them on hosts on which guests work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from kvmnet.formats import iptables
from kvmnet.model.host import Firewall


class Net(Struct, frozen=True):
    """A NAT network: its bridge and subnet."""

    bridge: str
    subnet: str


class Walls(Struct, frozen=True, kw_only=True):
    """What stands on a host."""

    nets: tuple[Net, ...]
    lan_bridge: str | None = None
    docker: bool = False
    docker_accepts: bool = False
    """DOCKER-USER accepts what goes over the LAN's bridge."""
    ufw: bool = False
    policy: str = "ACCEPT"
    """Of FORWARD."""
    noise: int = 0
    """Rules about something else."""


def firewall(walls: Walls) -> Firewall:
    """The firewall, read as `iptables-save` prints it."""
    four = "\n".join([*_filter(walls, with_nets=True), *_nat(walls)])
    six = "\n".join(_filter(walls, with_nets=False))
    front = (("docker",) if walls.docker else ()) + (("ufw",) if walls.ufw else ())
    return Firewall(
        known=True,
        chains=(
            *iptables.parse(four, backend="iptables-nft", family="ip"),
            *iptables.parse(six, backend="iptables-nft", family="ip6"),
        ),
        front_ends=front,
        programs=("iptables", "iptables-nft", "nft"),
    )


def _filter(walls: Walls, *, with_nets: bool) -> Iterator[str]:
    yield "*filter"
    yield f":INPUT {'DROP' if walls.ufw else 'ACCEPT'} [0:0]"
    yield f":FORWARD {walls.policy} [0:0]"
    yield ":OUTPUT ACCEPT [0:0]"
    for name in ("INP", "OUT", "FWI", "FWO", "FWX"):
        yield f":LIBVIRT_{name} - [0:0]"
    yield from _docker_chains(walls)
    yield from _ufw_chains(walls)
    yield "-A INPUT -j LIBVIRT_INP"
    yield "-A FORWARD -j LIBVIRT_FWX"
    yield "-A FORWARD -j LIBVIRT_FWI"
    yield "-A FORWARD -j LIBVIRT_FWO"
    yield "-A OUTPUT -j LIBVIRT_OUT"
    if with_nets:
        yield from _libvirt(walls.nets)
    yield from _docker(walls)
    yield from _ufw(walls)
    for number in range(walls.noise):
        yield f"-A INPUT -s 203.0.113.{number % 250 + 1}/32 -p tcp -m tcp --dport {1000 + number}" \
              " -j ACCEPT" if with_nets else \
              f"-A INPUT -p tcp -m tcp --dport {1000 + number} -j ACCEPT"  # fmt: skip
    yield "COMMIT"


def _libvirt(nets: Sequence[Net]) -> Iterator[str]:
    for net in nets:
        link = net.bridge
        for protocol, port in (("udp", 53), ("tcp", 53), ("udp", 67), ("tcp", 67)):
            yield f"-A LIBVIRT_INP -i {link} -p {protocol} -m {protocol} --dport {port} -j ACCEPT"
        yield f"-A LIBVIRT_FWI -d {net.subnet} -o {link} -m conntrack " \
              "--ctstate RELATED,ESTABLISHED -j ACCEPT"  # fmt: skip
        yield f"-A LIBVIRT_FWI -o {link} -j REJECT --reject-with icmp-port-unreachable"
        yield f"-A LIBVIRT_FWO -s {net.subnet} -i {link} -j ACCEPT"
        yield f"-A LIBVIRT_FWO -i {link} -j REJECT --reject-with icmp-port-unreachable"
        yield f"-A LIBVIRT_FWX -i {link} -o {link} -j ACCEPT"
        for protocol, port in (("udp", 53), ("tcp", 53), ("udp", 68), ("tcp", 68)):
            yield f"-A LIBVIRT_OUT -o {link} -p {protocol} -m {protocol} --dport {port} -j ACCEPT"


def _docker_chains(walls: Walls) -> Iterator[str]:
    if walls.docker:
        for name in ("DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2",
                     "DOCKER-USER"):  # fmt: skip
            yield f":{name} - [0:0]"


def _docker(walls: Walls) -> Iterator[str]:
    if not walls.docker:
        return
    yield "-A FORWARD -j DOCKER-USER"
    yield "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"
    yield "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "-A FORWARD -o docker0 -j DOCKER"
    yield "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT"
    yield "-A FORWARD -i docker0 -o docker0 -j ACCEPT"
    yield "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2"
    yield "-A DOCKER-ISOLATION-STAGE-1 -j RETURN"
    yield "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP"
    yield "-A DOCKER-ISOLATION-STAGE-2 -j RETURN"
    if walls.docker_accepts and walls.lan_bridge is not None:
        yield f"-A DOCKER-USER -i {walls.lan_bridge} -o {walls.lan_bridge} -j ACCEPT"
    yield "-A DOCKER-USER -j RETURN"


def _ufw_chains(walls: Walls) -> Iterator[str]:
    if walls.ufw:
        for part in ("before", "user", "after"):
            for hook in ("input", "forward"):
                yield f":ufw-{part}-{hook} - [0:0]"


def _ufw(walls: Walls) -> Iterator[str]:
    """`ufw allow in on BRIDGE`, `ufw route allow in|out on BRIDGE` and `ufw allow 22/tcp`."""
    if not walls.ufw:
        return
    for hook in ("input", "forward"):
        for part in ("before", "user", "after"):
            yield f"-A {hook.upper()} -j ufw-{part}-{hook}"
    yield "-A ufw-before-input -i lo -j ACCEPT"
    yield "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT"
    for bridge in [x.bridge for x in walls.nets] + ([walls.lan_bridge] if walls.lan_bridge else []):
        yield f"-A ufw-user-input -i {bridge} -j ACCEPT"
        yield f"-A ufw-user-forward -i {bridge} -j ACCEPT"
        yield f"-A ufw-user-forward -o {bridge} -j ACCEPT"


def _nat(walls: Walls) -> Iterator[str]:
    yield "*nat"
    for chain in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"):
        yield f":{chain} ACCEPT [0:0]"
    yield ":LIBVIRT_PRT - [0:0]"
    if walls.docker:
        yield ":DOCKER - [0:0]"
        yield "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"
        yield "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
        yield "-A DOCKER -i docker0 -j RETURN"
    yield "-A POSTROUTING -j LIBVIRT_PRT"
    for net in walls.nets:
        subnet = net.subnet
        yield f"-A LIBVIRT_PRT -s {subnet} -d 224.0.0.0/24 -j RETURN"
        yield f"-A LIBVIRT_PRT -s {subnet} -d 255.255.255.255/32 -j RETURN"
        for protocol in ("tcp", "udp"):
            yield f"-A LIBVIRT_PRT -s {subnet} ! -d {subnet} -p {protocol} -j MASQUERADE " \
                  "--to-ports 1024-65535"  # fmt: skip
        yield f"-A LIBVIRT_PRT -s {subnet} ! -d {subnet} -j MASQUERADE"
    yield "COMMIT"
