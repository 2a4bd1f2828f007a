"""The host that stands around the rulesets: the network default with two guests, br0 with one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kvmnet.adapters.rulesets import merged
from kvmnet.formats import iptables, nft, nft_values
from kvmnet.model.host import (
    Address,
    BridgeAttributes,
    Firewall,
    Link,
    PortAttributes,
    Route,
    Sysctl,
)
from kvmnet.model.state import Connection, State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import DhcpRange, Guest, GuestNic, Lease, Network, NetworkConfig, NetworkIp

CASES = Path(__file__).parent / "cases"
URI = "qemu:///system"


def load(folder: Path) -> Firewall:
    """The firewall, put together as its adapter does."""
    text = (folder / "nft.json").read_text()
    chains = nft.parse(text, nft.parse_texts((folder / "nft.txt").read_text()))
    for family in ("ip", "ip6"):
        saved = (folder / f"{family}tables-nft.txt").read_text()
        chains = merged(
            chains, iptables.parse(saved, backend="iptables-nft", family=family), family
        )
        legacy = folder / f"{family}tables-legacy.txt"
        if legacy.exists():
            chains += iptables.parse(legacy.read_text(), backend="iptables-legacy", family=family)
    sets = []
    for item in msgspec.json.decode(text)["nftables"]:
        if {"set", "map"} & item.keys():
            sets.append(nft_values.parse_set(msgspec.json.encode({"nftables": [item]}).decode()))
    return Firewall(
        known=True, chains=chains, sets=tuple(x for x in sets if x is not None),
        programs=("nft", "iptables", "iptables-nft"), libvirt_daemon="libvirtd",
    )  # fmt: skip


def state_with(firewall: Firewall, *, bridged: bool = False, guests: int = 2) -> State:
    """The host with that firewall; `bridged`: br_netfilter shows frames to IP's rules."""
    newer = any(x.table == "libvirt_network" for x in firewall.chains)
    call = "1" if bridged else "0"
    return State(
        taken_at=1000, hostname="h", privileged=True,
        connections=(Connection(uri=URI, libvirt_version="11.3.0" if newer else "9.0.0",
                                hypervisor="QEMU"),),
        links=_links(guests), addresses=(
            Address(link="virbr0", ip=Ip("192.168.122.1"), prefix_len=24, family=4),
            Address(link="eth0", ip=Ip("192.0.2.7"), prefix_len=24, family=4),
        ),
        routes=(
            Route(family=4, destination=Cidr("0.0.0.0/0"), link="eth0", gateway=Ip("192.0.2.1")),
            Route(family=6, destination=Cidr("::/0"), link="eth0", gateway=Ip("fe80::1")),
        ),
        sysctls=(
            Sysctl(name="net.ipv4.ip_forward", value="1"),
            Sysctl(name="net.bridge.bridge-nf-call-iptables", value=call),
            Sysctl(name="net.bridge.bridge-nf-call-ip6tables", value=call),
        ),
        firewall=firewall, networks=(_network(),),
        guests=(
            *(_guest(f"g{n}", n, "network", "default") for n in range(1, guests + 1)),
            _guest("b", 0, "bridge", "br0"),
        ),
        leases=tuple(
            Lease(connection=URI, network="default", mac=Mac(f"52:54:00:00:00:{n:02x}"),
                  ip=Ip(f"192.168.122.{10 + n}"), family=4, expires_at=4000)
            for n in range(1, guests + 1)
        ),
    )  # fmt: skip


def _links(guests: int) -> tuple[Link, ...]:
    quiet = BridgeAttributes(stp=False, forward_delay_s=0)
    port = PortAttributes(state="forwarding")
    taps = [("vnet0", "br0"), *((f"vnet{n}", "virbr0") for n in range(1, guests + 1))]
    return (
        Link(index=2, name="eth0", kind="ethernet", up=True, carrier=True),
        Link(index=3, name="eth1", kind="ethernet", up=True, carrier=True, master="br0", port=port,
             mac=Mac("52:54:00:00:ff:01")),
        Link(index=4, name="br0", kind="bridge", up=True, carrier=True, bridge=quiet,
             mac=Mac("52:54:00:00:ff:01")),
        Link(index=5, name="virbr0", kind="bridge", up=True, carrier=True, bridge=quiet,
             mac=Mac("52:54:00:00:ff:02")),
        *(Link(index=10 + n, name=tap, kind="tap", up=True, carrier=True, master=bridge, port=port)
          for n, (tap, bridge) in enumerate(taps)),
    )  # fmt: skip


def _network() -> Network:
    ip = NetworkIp(
        family=4, address=Ip("192.168.122.1"), prefix_len=24,
        ranges=(DhcpRange(start=Ip("192.168.122.2"), end=Ip("192.168.122.254")),),
    )  # fmt: skip
    config = NetworkConfig(mode="nat", bridge="virbr0", stp=False, ips=(ip,))
    return Network(connection=URI, name="default", uuid="u", active=True, persistent=True,
                   autostart=True, live=config, saved=config)  # fmt: skip


def _guest(name: str, number: int, kind: str, source: str) -> Guest:
    mac = Mac(f"52:54:00:00:00:{number:02x}")
    saved = GuestNic(mac=mac, type=kind, source=source, model="virtio")
    live = GuestNic(mac=mac, type=kind, source=source, model="virtio", target=f"vnet{number}",
                    bridge="virbr0" if kind == "network" else None)  # fmt: skip
    return Guest(connection=URI, name=name, uuid=f"u{number}", state="running", id=number + 1,
                 live_nics=(live,), saved_nics=(saved,))  # fmt: skip
