"""Randomly composed hosts on which guests work: what a diagnosis has to be silent about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from kvmnet.model.host import (
    Address,
    BridgeAttributes,
    DockerNetwork,
    ForwardingEntry,
    Link,
    Listener,
    Neighbour,
    NicOwner,
    PortAttributes,
    Route,
    Rule,
    Sysctl,
)
from kvmnet.model.setup import (
    BridgeHelper,
    BridgeMulticast,
    ConfiguredBridge,
    ConfiguredPort,
    Machine,
    MulticastListener,
    PortVlans,
    VlanRange,
)
from kvmnet.model.state import Connection, State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import (
    AgentAddress,
    DhcpRange,
    Guest,
    GuestNic,
    Lease,
    Network,
    NetworkConfig,
    NetworkIp,
)

from .healthy_firewall import Net, Walls, firewall

URI = "qemu:///system"
NIC_MAC = Mac("3c:ec:ef:00:00:01")
PORT = PortAttributes(state="forwarding")


Manager = Literal["netplan", "NetworkManager", "systemd-networkd", "ifupdown"]
MANAGERS: tuple[Manager, ...] = get_args(Manager)
PROTOCOLS: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp")


class Recipe(Struct, frozen=True, kw_only=True):
    """What a host is composed of."""

    nets: int
    """NAT networks that are active."""
    sleeping: int
    """Networks that are off and that nobody uses."""
    lan: bool
    """A bridge on the LAN, which carries the host's address."""
    uplink: str
    """ethernet, bond or vlan."""
    dhcp: bool
    """The host's address is from DHCP."""
    guests: tuple[tuple[int, bool, bool], ...]
    """Each: number of its place, whether it runs, whether it starts with the host."""
    docker: bool
    ufw: bool
    netfilter: bool
    """br_netfilter is loaded and shows bridged frames to iptables."""
    stp: bool
    """Spanning tree on libvirt's bridges, as its default is, without a delay that counts."""
    strict: bool
    """Reverse paths are filtered strictly, as some distributions do."""
    tagged: bool
    """The LAN bridge filters VLANs, and its guests are on 30."""
    jumbo: bool
    """The LAN takes 9000 bytes, and its guests send them."""
    asked: bool
    """Somebody asks for multicast listeners on the LAN."""
    manager: Manager
    """Who makes the LAN bridge."""
    vendor: str
    noise: int
    routes: int


recipes = st.builds(
    Recipe,
    nets=st.integers(0, 4),
    sleeping=st.integers(0, 2),
    lan=st.booleans(),
    uplink=st.sampled_from(["ethernet", "bond", "vlan"]),
    dhcp=st.booleans(),
    guests=st.lists(
        st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), max_size=8
    ).map(tuple),
    docker=st.booleans(),
    ufw=st.booleans(),
    netfilter=st.booleans(),
    stp=st.booleans(),
    strict=st.booleans(),
    tagged=st.booleans(),
    jumbo=st.booleans(),
    asked=st.booleans(),
    manager=st.sampled_from(MANAGERS),
    vendor=st.sampled_from(["", "QEMU", "VMware, Inc.", "Dell Inc."]),
    noise=st.integers(0, 30),
    routes=st.integers(0, 5),
)  # fmt: skip


class Host:
    """A recipe being carried out."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._links: list[Link] = [
            Link(index=1, name="lo", kind="loopback", up=True, mac=Mac("00:00:00:00:00:00"))
        ]
        self._addresses: list[Address] = []
        self._routes: list[Route] = []
        self._forwarding: list[ForwardingEntry] = []
        self._leases: list[Lease] = []
        self._neighbours: list[Neighbour] = []
        self._vlans: list[PortVlans] = []
        self._nets = [
            Net(f"virbr{x}", f"192.168.{122 + x}.0/24") for x in range(recipe.nets)
        ]  # fmt: skip

    def state(self) -> State:
        recipe = self._recipe
        uplink = self._uplink()
        home = self._lan(uplink) if recipe.lan else uplink
        self._own(home, "10.20.0.5", 24, dynamic=recipe.dhcp)
        self._default(home)
        networks = (*self._networks(), *self._sleeping())
        if recipe.docker:
            self._docker()
        guests = tuple(self._guests())
        return State(
            taken_at=1_700_000_000,
            hostname="h",
            kernel="6.1",
            privileged=True,
            connections=(Connection(uri=URI, libvirt_version="9.0.0", hypervisor="QEMU"),),
            links=tuple(self._links),
            addresses=tuple(self._addresses),
            routes=tuple(self._routes),
            rules=tuple(
                Rule(family=4, priority=x, table=y, protocol="kernel")
                for x, y in ((0, "local"), (32766, "main"), (32767, "default"))
            ),
            neighbours=tuple(self._neighbours),
            forwarding=tuple(self._forwarding),
            sysctls=tuple(self._sysctls()),
            firewall=firewall(self._walls()),
            listeners=tuple(self._listeners()),
            docker_networks=(
                (DockerNetwork(name="bridge", subnets=(Cidr("172.17.0.0/16"),)),)
                if recipe.docker
                else ()
            ),
            networks=networks,
            guests=guests,
            leases=tuple(self._leases),
            owners=tuple(NicOwner(link=x.name, manager=recipe.manager) for x in self._links
                         if x.name == "br0"),
            port_vlans=tuple(self._vlans),
            multicast=tuple(self._multicast(guests)),
            configured_bridges=tuple(self._configured(uplink)),
            bridge_helper=BridgeHelper(),
            machine=Machine(vendor=recipe.vendor, hypervisor=bool(recipe.vendor)),
            rp_filter_drops=recipe.noise,
            failed_units=("apt-daily.service",) if recipe.noise else (),
        )  # fmt: skip

    def _configured(self, uplink: str) -> Iterator[ConfiguredBridge]:
        if self._recipe.lan:
            port = ConfiguredPort(name=uplink, path="/etc/x", link=uplink)
            yield ConfiguredBridge(name="br0", manager=self._recipe.manager, path="/etc/x",
                                   ports=(port,), needs_carrier=True,
                                   addresses=(Cidr("10.20.0.5/24"),))  # fmt: skip

    def _multicast(self, guests: tuple[Guest, ...]) -> Iterator[BridgeMulticast]:
        """Every guest listens for the address that it tells."""
        if not self._recipe.lan:
            return
        yield BridgeMulticast(
            bridge="br0", querier6=self._recipe.asked,
            listeners=tuple(
                MulticastListener(port=nic.target or "", group=_group(address.ip))
                for guest in guests for address in guest.agent_addresses for nic in guest.live_nics
                if self._recipe.asked
            ),
        )  # fmt: skip

    def _link(self, name: str, kind: str, mac: Mac, **more: object) -> str:
        blank = Link(index=len(self._links) + 1, name=name, kind=kind, mac=mac, up=True,
                     carrier=True, operstate="up")  # fmt: skip
        self._links.append(msgspec.structs.replace(blank, **more))
        return name

    def _uplink(self) -> str:
        """The link that leads to the LAN, with what is below it."""
        if self._recipe.uplink == "bond":
            for number in (1, 2):
                self._link(f"eno{number}", "ethernet", NIC_MAC, driver="igb", master="bond0",
                           lro=False, mac_assigned="set")  # fmt: skip
            return self._link("bond0", "bond", NIC_MAC, mode="active-backup")
        self._link("eno1", "ethernet", NIC_MAC, driver="igb", lro=False, mac_assigned="permanent")
        if self._recipe.uplink == "vlan":
            return self._link("eno1.20", "vlan", NIC_MAC, parent="eno1", vlan_id=20)
        return "eno1"

    def _lan(self, uplink: str) -> str:
        self._links = [
            msgspec.structs.replace(x, master="br0", port=PORT, promiscuity=1, mtu=self._mtu())
            if x.name == uplink else x for x in self._links
        ]  # fmt: skip
        if self._recipe.tagged:
            both = (VlanRange(first=1, last=1), VlanRange(first=30, last=30))
            self._vlans += [PortVlans(port=uplink, ranges=both, pvid=1),
                            PortVlans(port="br0", ranges=both[:1], pvid=1)]  # fmt: skip
        return self._link("br0", "bridge", NIC_MAC, mac_assigned="set", mtu=self._mtu(),
                          bridge=BridgeAttributes(stp=False, forward_delay_s=0,
                                                  vlan_filtering=self._recipe.tagged))  # fmt: skip

    def _mtu(self) -> int:
        return 9000 if self._recipe.jumbo else 1500

    def _own(self, link: str, ip: str, prefix_len: int, *, dynamic: bool = False) -> None:
        network = ip.rpartition(".")[0] + ".0" if prefix_len == 24 else "172.17.0.0"
        self._addresses.append(
            Address(link=link, ip=Ip(ip), prefix_len=prefix_len, family=4, dynamic=dynamic,
                    valid_s=3600 if dynamic else None)
        )  # fmt: skip
        self._routes.append(
            Route(family=4, destination=Cidr(f"{network}/{prefix_len}"), link=link,
                  source=Ip(ip), protocol="kernel", scope="link")
        )  # fmt: skip

    def _default(self, link: str) -> None:
        gateway = Ip("10.20.0.1")
        self._routes.append(
            Route(family=4, destination=Cidr("0.0.0.0/0"), link=link, gateway=gateway,
                  protocol="dhcp" if self._recipe.dhcp else "static")
        )  # fmt: skip
        for number in range(self._recipe.routes):
            self._routes.append(
                Route(family=4, destination=Cidr(f"10.{100 + number}.0.0/16"), link=link,
                      gateway=gateway, protocol="static")
            )  # fmt: skip
        self._neighbours.append(
            Neighbour(link=link, ip=gateway, family=4, mac=Mac("3c:ec:ef:00:00:99"),
                      state="REACHABLE")
        )  # fmt: skip

    def _networks(self) -> Iterator[Network]:
        for number, net in enumerate(self._nets):
            mac = Mac(f"52:54:00:aa:00:{number:02x}")
            attributes = BridgeAttributes(stp=self._recipe.stp, forward_delay_s=2.0)
            self._link(net.bridge, "bridge", mac, mac_assigned="set", bridge=attributes,
                       carrier=False)  # fmt: skip
            self._own(net.bridge, f"192.168.{122 + number}.1", 24)
            yield _network(f"net{number}", net.bridge, 122 + number, mac, stp=self._recipe.stp)
        if self._recipe.lan:
            config = NetworkConfig(mode="bridge", bridge="br0")
            yield Network(connection=URI, name="lan", uuid="lan", active=True, persistent=True,
                          autostart=True, live=config, saved=config)  # fmt: skip

    def _sleeping(self) -> Iterator[Network]:
        for number in range(self._recipe.sleeping):
            mac = Mac(f"52:54:00:bb:00:{number:02x}")
            yield _network(f"off{number}", f"virbr{90 + number}", 190 + number, mac, active=False)

    def _docker(self) -> None:
        self._link("docker0", "bridge", Mac("02:42:00:00:00:01"), carrier=False,
                   bridge=BridgeAttributes(stp=False, forward_delay_s=15.0))  # fmt: skip
        self._own("docker0", "172.17.0.1", 16)

    def _guests(self) -> Iterator[Guest]:
        places = [("network", f"net{x}", y.bridge) for x, y in enumerate(self._nets)]
        if self._recipe.lan:
            places += [("bridge", "br0", "br0"), ("network", "lan", "br0")]
        for number, (choice, runs, autostart) in enumerate(self._recipe.guests):
            if not places:
                return
            kind, source, bridge = places[choice % len(places)]
            mac = Mac(f"52:54:00:00:01:{number:02x}")
            big = bridge == "br0" and self._recipe.jumbo
            vlans = (30,) if bridge == "br0" and self._recipe.tagged else ()
            saved = GuestNic(mac=mac, type=kind, source=source, model="virtio", vlans=vlans,
                             mtu=9000 if big else None)  # fmt: skip
            live: tuple[GuestNic, ...] = ()
            if runs:
                live = (self._plugged(number, mac, kind, source, bridge),)
            yield Guest(connection=URI, name=f"g{number}", uuid=f"u{number}",
                        state="running" if runs else "shut off", id=number + 1 if runs else None,
                        autostart=autostart, live_nics=live, saved_nics=(saved,),
                        agent="connected" if runs else "none",
                        agent_addresses=tuple(_inside(number, x) for x in live))  # fmt: skip

    def _plugged(self, number: int, mac: Mac, kind: str, source: str, bridge: str) -> GuestNic:
        on_lan = bridge == "br0"
        tap = self._link(f"vnet{number}", "tap", Mac(f"fe:{mac[3:]}"), master=bridge, port=PORT,
                         mtu=self._mtu() if on_lan else 1500)  # fmt: skip
        tagged = on_lan and self._recipe.tagged
        if tagged:
            only = (VlanRange(first=30, last=30),)
            self._vlans.append(PortVlans(port=tap, ranges=only, pvid=30))
        self._forwarding.append(ForwardingEntry(mac=mac, port=tap, bridge=bridge, age_s=2))
        if source.startswith("net"):
            subnet = 122 + int(source.removeprefix("net"))
            ip = Ip(f"192.168.{subnet}.{10 + number}")
            self._leases.append(
                Lease(connection=URI, network=source, mac=mac, ip=ip, family=4, prefix_len=24,
                      client_id=f"ff:{mac}", expires_at=1_700_003_000)
            )  # fmt: skip
            self._neighbours.append(
                Neighbour(link=bridge, ip=ip, family=4, mac=mac, state="REACHABLE")
            )
        return GuestNic(mac=mac, type=kind, source=source, model="virtio", target=tap,
                        bridge=bridge if kind == "network" else None, alias="net0",
                        vlans=(30,) if tagged else (),
                        mtu=9000 if on_lan and self._recipe.jumbo else None)  # fmt: skip

    def _sysctls(self) -> Iterator[Sysctl]:
        level = "1" if self._recipe.strict else "2"
        settings = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "0",
                    "net.ipv4.conf.all.rp_filter": level}  # fmt: skip
        if self._recipe.netfilter:
            settings |= {f"net.bridge.bridge-nf-call-{x}": "1" for x in ("iptables", "ip6tables",
                                                                         "arptables")}  # fmt: skip
        for link in self._links:
            if link.kind == "tap":
                continue
            settings |= {
                f"net.ipv4.conf.{link.name}.forwarding": "1",
                f"net.ipv4.conf.{link.name}.rp_filter": level,
                f"net.ipv6.conf.{link.name}.forwarding": "0",
                f"net.ipv6.conf.{link.name}.accept_ra": "1",
            }
        for name, value in settings.items():
            yield Sysctl(name=name, value=value)

    def _listeners(self) -> Iterator[Listener]:
        yield Listener(protocol="udp", ip="127.0.0.53", port=53, process="systemd-resolve", pid=9)
        for number, net in enumerate(self._nets):
            yield Listener(protocol="udp", ip="0.0.0.0", port=67, link=net.bridge,
                           process="dnsmasq", pid=100 + number)  # fmt: skip
            for protocol in PROTOCOLS:
                yield Listener(protocol=protocol, ip=f"192.168.{122 + number}.1", port=53,
                               process="dnsmasq", pid=100 + number)  # fmt: skip

    def _walls(self) -> Walls:
        recipe = self._recipe
        return Walls(
            nets=tuple(self._nets),
            lan_bridge="br0" if recipe.lan else None,
            docker=recipe.docker,
            docker_accepts=recipe.netfilter,
            ufw=recipe.ufw,
            policy="DROP" if recipe.docker or recipe.ufw else "ACCEPT",
            noise=recipe.noise,
        )


def _inside(number: int, nic: GuestNic) -> AgentAddress:
    mac = nic.mac or NIC_MAC
    ip = Ip(f"2001:db8::{number + 1:x}")
    return AgentAddress(mac=mac, ip=ip, prefix_len=64, family=6, nic="eth0")


def _group(ip: Ip) -> str:
    return f"ff02::1:ff00:{int(ip.rpartition(':')[2], 16):x}"


def _network(
    name: str, bridge: str, subnet: int, mac: Mac, *, active: bool = True, stp: bool = True
) -> Network:
    span = DhcpRange(start=Ip(f"192.168.{subnet}.2"), end=Ip(f"192.168.{subnet}.254"))
    ip = NetworkIp(family=4, address=Ip(f"192.168.{subnet}.1"), prefix_len=24, ranges=(span,))
    config = NetworkConfig(mode="nat", bridge=bridge, bridge_mac=mac, ips=(ip,), stp=stp)
    return Network(
        connection=URI, name=name, uuid=name, active=active, persistent=True, autostart=active,
        live=config if active else None, saved=config,
    )  # fmt: skip
