"""What the kernel and the host network managers know: links, addresses, routes, firewall."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.firewall import FirewallBranch, FirewallMatch, FirewallSet
from kvmnet.model.values import Cidr, Ip, Mac

Family = Literal[4, 6]


class BridgeAttributes(Struct, frozen=True, kw_only=True):
    """Attributes of a Linux bridge (kernel: Documentation/networking/bridge.rst)."""

    stp: bool
    forward_delay_s: float
    """Seconds in each of listening and learning before a new port forwards, if STP is on."""
    vlan_filtering: bool = False
    default_pvid: int = 1
    """The VLAN that a new port's untagged frames belong to, with VLAN filtering; 0: none."""
    multicast_snooping: bool = True
    multicast_querier: bool = False
    ageing_s: float = 300.0
    group_fwd_mask: int = 0
    nf_call_iptables: bool = False
    nf_call_ip6tables: bool = False


class PortAttributes(Struct, frozen=True, kw_only=True):
    """State of one port of a Linux bridge."""

    state: Literal["disabled", "listening", "learning", "forwarding", "blocking"]
    learning: bool = True
    flood: bool = True
    isolated: bool = False
    hairpin: bool = False
    cost: int | None = None
    """Of spanning tree; the kernel takes it from the NIC's speed where nobody has set it."""
    options: tuple[str, ...] = ()
    """What else is not as a new port has it, as ip-link(8) takes it: `guard`, `on`, `priority`,
    `16`."""


class Link(Struct, frozen=True, kw_only=True):
    """One network device of the host."""

    index: int
    name: str
    kind: str
    """ethernet, wireless, loopback, bridge, veth, tap, tun, macvtap, macvlan, vlan, bond, vxlan,
    dummy, openvswitch, or the kernel's own word (IFLA_INFO_KIND) for anything else."""
    mac: Mac | None = None
    mtu: int = 1500
    up: bool = False
    """Administratively up (IFF_UP)."""
    carrier: bool | None = None
    """Whether a link partner is there (IFF_LOWER_UP); None while the link is down."""
    operstate: str = "unknown"
    speed_mbit: int | None = None
    driver: str | None = None
    """The kernel driver of a real device, for example `e1000e`; None for software devices."""
    master: str | None = None
    """The bridge or bond this link is enslaved to."""
    parent: str | None = None
    """The link below a vlan, macvlan, macvtap or vxlan; None also if it is in another namespace."""
    altnames: tuple[str, ...] = ()
    mac_assigned: Literal["permanent", "random", "stolen", "set", "unknown"] = "unknown"
    """How the MAC came to be (sysfs `addr_assign_type`)."""
    vlan_id: int | None = None
    vxlan_id: int | None = None
    mode: str | None = None
    """Mode of a bond, macvlan or macvtap in the kernel's words, of a wireless NIC in those of
    iw(8): `managed` (a station), `AP` …"""
    four_address: bool | None = None
    """Wireless only: whether 4-address mode is on, without which no bridge takes a station."""
    lro: bool | None = None
    """Real NICs only: whether large receive offload is on, which the kernel turns off on ports."""
    tx_checksum: bool | None = None
    """Bridges only: whether it takes packets with unfinished checksums (`ethtool -k`, tx)."""
    promiscuity: int = 0
    """How many want every frame of it: captures, bridges."""
    promisc: bool = False
    """Whether it was made promiscuous by hand (IFF_PROMISC)."""
    allmulti: bool = False
    """Whether it was made to take all multicast frames by hand (IFF_ALLMULTI)."""
    bridge: BridgeAttributes | None = None
    port: PortAttributes | None = None


class Address(Struct, frozen=True, kw_only=True):
    """An IP address that the host owns."""

    link: str
    ip: Ip
    prefix_len: int
    family: Family
    scope: str = "global"
    dynamic: bool = False
    """Has a lifetime: from DHCP or IPv6 autoconfiguration."""
    valid_s: int | None = None
    """Seconds until it is removed; None: for ever."""
    preferred_s: int | None = None
    flags: tuple[str, ...] = ()
    """The kernel's words: tentative, deprecated, dadfailed, noprefixroute, mngtmpaddr …"""
    label: str | None = None
    """IPv4 only, and only where it is not the link's name: `eth0:1`."""
    peer: Ip | None = None
    """The far end of a point-to-point address; `prefix_len` is then the peer's."""
    broadcast: Ip | None = None
    metric: int | None = None
    """Of the route to its prefix that the kernel makes; None: the kernel's own choice."""


class Route(Struct, frozen=True, kw_only=True):
    """One route of any table; a route of several next hops comes as one for each of them."""

    family: Family
    destination: Cidr
    """`0.0.0.0/0` or `::/0` for a default route."""
    table: str = "main"
    link: str | None = None
    gateway: Ip | None = None
    source: Ip | None = None
    protocol: str = ""
    """Who made it: kernel, boot, static, dhcp, ra, bird …"""
    metric: int = 0
    scope: str = ""
    type: str = "unicast"
    tos: str | None = None
    weight: int | None = None
    """Share of this next hop in a route of several; None: it is the route's only one."""
    onlink: bool = False
    """The gateway is taken to be on the link although no prefix says so."""
    preference: str | None = None
    """IPv6 only, RFC 4191: low, medium or high."""
    expires_s: int | None = None
    """Seconds until it is removed (IPv6, from a router); None: never."""
    metrics: tuple[str, ...] = ()
    """Limits of the path, as ip-route(8) takes them: `mtu`, `1400`, `advmss`, `1360`."""
    opaque: bool = False
    """It has parts that kvmnet does not understand: a nexthop object, an encapsulation."""


class Rule(Struct, frozen=True, kw_only=True):
    """One routing policy rule (`ip rule`)."""

    family: Family
    priority: int
    table: str = "main"
    action: str = "lookup"
    source: str = "all"
    destination: str = "all"
    iif: str | None = None
    oif: str | None = None
    fwmark: str | None = None
    protocol: str = ""
    """Who made it: kernel, boot, static …"""
    inverted: bool = False
    """It applies to packets that do not match."""
    options: tuple[str, ...] = ()
    """Further conditions and options, as ip-rule(8) takes them: `ipproto`, `tcp`, `dport`, `80`."""


class Neighbour(Struct, frozen=True, kw_only=True):
    """An entry of the ARP (IPv4) or ND (IPv6) cache."""

    link: str
    ip: Ip
    family: Family
    mac: Mac | None = None
    state: str = ""
    """REACHABLE, STALE, DELAY, PROBE, FAILED, INCOMPLETE, PERMANENT, NOARP."""
    router: bool = False
    proxy: bool = False
    age_s: int | None = None
    """Seconds since the address was last confirmed."""


class ForwardingEntry(Struct, frozen=True, kw_only=True):
    """An entry of a bridge's forwarding database: behind which port a MAC was seen."""

    mac: Mac
    port: str
    bridge: str | None = None
    vlan: int | None = None
    kind: Literal["learned", "local", "static"] = "learned"
    """local: the port's own address (kernel: permanent)."""
    age_s: int | None = None
    """Seconds since a frame from that MAC last came in."""


class Sysctl(Struct, frozen=True, kw_only=True):
    """One kernel setting, named as sysctl(8) does: `net.ipv4.ip_forward`; NIC names keep dots."""

    name: str
    value: str


class SysctlFile(Struct, frozen=True, kw_only=True):
    """What a file sets a kernel setting to when the host starts."""

    name: str
    value: str
    path: str


class FirewallRule(Struct, frozen=True, kw_only=True):
    """One rule, as far as kvmnet understands it. Absent conditions match everything."""

    text: str
    """The rule as its own tool prints it: the evidence shown to people."""
    verdict: str
    """accept, drop, reject, return, jump, goto, continue, or another statement's name."""
    target: str | None = None
    """The chain jumped to."""
    to: str | None = None
    """Of `dnat`: the new destination, `ADDRESS` or `ADDRESS:PORT` (IPv6 in brackets)."""
    iif: str | None = None
    """Name of the link it came in through; a trailing `*` or `+` matches any rest;
    a leading `!` negates. The same for `oif`."""
    oif: str | None = None
    protocol: str | None = None
    dports: tuple[str, ...] = ()
    """Destination ports, each a number or `A-B`."""
    source: str | None = None
    destination: str | None = None
    ct_states: tuple[str, ...] = ()
    """Connection tracking states that match, in lower case; empty: any."""
    more: tuple[FirewallMatch, ...] = ()
    """Conditions that the fields above can't say; all of them must hold too."""
    branch_keys: tuple[str, ...] = ()
    """Of a verdict map (verdict `vmap`): what of the packet is looked up."""
    branches: tuple[FirewallBranch, ...] = ()
    branch_set: str | None = None
    """The named map that is looked up instead of `branches`."""
    opaque: bool = False
    """It has conditions that kvmnet does not understand: it may or may not match."""
    handle: int | None = None
    comment: str | None = None
    packets: int | None = None


class FirewallChain(Struct, frozen=True, kw_only=True):
    """One chain of rules; a base chain has a hook, a priority and a policy."""

    backend: Literal["nft", "iptables-nft", "iptables-legacy"]
    family: str
    """nft's word: ip, ip6, inet, bridge, arp, netdev."""
    table: str
    name: str
    hook: str | None = None
    priority: int | None = None
    policy: Literal["accept", "drop"] | None = None
    type: str | None = None
    devices: tuple[str, ...] = ()
    """Of a chain on the ingress or egress hook: the links whose packets it sees."""
    rules: tuple[FirewallRule, ...] = ()


class Firewall(Struct, frozen=True, kw_only=True):
    """All rulesets of the host, and the front ends that manage them."""

    known: bool = False
    """Whether all rulesets were read: only then the absence of a chain proves something."""
    chains: tuple[FirewallChain, ...] = ()
    front_ends: tuple[str, ...] = ()
    """firewalld, ufw, docker: those that are active."""
    sets: tuple[FirewallSet, ...] = ()
    """Named sets and maps that rules refer to, where they were asked for."""
    programs: tuple[str, ...] = ()
    """Those that are installed: `nft`, `iptables`, and `iptables-nft` or `iptables-legacy` for the
    kind that `iptables` is."""
    libvirt_daemon: Literal["virtnetworkd", "libvirtd"] | None = None
    """The daemon that has libvirt's networks and writes their rules, if one runs."""
    firewalld_late_s: float | None = None
    """Seconds from the start of libvirt's daemon to that of firewalld; below 0: it was first.
    None: not both run."""
    libvirt_backend: str | None = None
    """`firewall_backend` of /etc/libvirt/network.conf, where it is set."""


class NicOwner(Struct, frozen=True, kw_only=True):
    """Which host network manager owns a NIC, and how that is known."""

    link: str
    manager: Literal["netplan", "NetworkManager", "systemd-networkd", "ifupdown", "libvirt", "none"]
    renderer: str | None = None
    """For netplan: NetworkManager or networkd."""
    evidence: tuple[str, ...] = ()
    """Files and answers that say so, for people: `/etc/netplan/50-cloud-init.yaml`."""
    rivals: tuple[str, ...] = ()
    """Other managers that claim the NIC too, each with its evidence: `ifupdown
    (/etc/network/interfaces: iface eth0 inet dhcp)`."""


class Listener(Struct, frozen=True, kw_only=True):
    """A socket bound to a port that libvirt's dnsmasq needs (53 or 67)."""

    protocol: Literal["udp", "tcp"]
    ip: str
    """`0.0.0.0` and `::` stand for every address."""
    port: int
    link: str | None = None
    """The device the socket is bound to, if any."""
    process: str | None = None
    pid: int | None = None


class DockerNetwork(Struct, frozen=True, kw_only=True):
    """A network that Docker defined; its bridge may be absent while Docker is down."""

    name: str
    subnets: tuple[Cidr, ...]
