"""libvirt's network XML to `NetworkConfig` and back (https://libvirt.org/formatnetwork.html)."""

from __future__ import annotations

import ipaddress
import re

import msgspec
from lxml import etree
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.formats.domain_xml import only_child, parse_root
from kvmnet.model.host import Family
from kvmnet.model.values import Ip, Mac, parse_ip, parse_mac
from kvmnet.model.virt import DhcpRange, NetworkConfig, NetworkIp, Reservation

DNSMASQ_NAMESPACE = "http://libvirt.org/schemas/network/dnsmasq/1.0"
"""libvirt passes options under this namespace on to dnsmasq (since libvirt 5.6)."""

_DHCP_RANGE = re.compile(r"dhcp-range=(?P<start>[0-9.]+),(?P<end>[0-9.]+),(?P<mask>255\.[0-9.]+)")

_LEASE_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}


class ParsedNetwork(Struct, frozen=True, kw_only=True):
    """What one network XML says."""

    name: str
    uuid: str
    config: NetworkConfig


def parse(text: str) -> ParsedNetwork:
    """A network XML as libvirt prints it, or as a user wrote it. Raises `InvalidInput`."""
    return _parsed(parse_root(text, "network"))


def parse_status(text: str) -> ParsedNetwork:
    """The same of the file that libvirt keeps of a running network. Raises `InvalidInput`."""
    return _parsed(only_child(parse_root(text, "networkstatus"), "network"))


def _parsed(root: etree._Element) -> ParsedNetwork:
    name = root.findtext("name") or ""
    try:
        return ParsedNetwork(name=name, uuid=root.findtext("uuid") or "", config=_config(root))
    except ValueError as error:
        raise InvalidInput(f"the XML of network {name!a} is not valid", why=str(error)) from None


def _config(root: etree._Element) -> NetworkConfig:
    forward = root.find("forward")
    mode = "isolated" if forward is None else forward.get("mode", "nat")
    bridge = root.find("bridge")
    mtu = root.find("mtu")
    mac = root.find("mac")
    dns = root.find("dns")
    domain = root.find("domain")
    virtualport = root.find("virtualport")
    ips, options = _with_ranges(
        [_ip(element) for element in root.findall("ip")],
        [x.get("value", "") for x in root.iterfind(f"{{{DNSMASQ_NAMESPACE}}}options/*")],
    )
    return NetworkConfig(
        mode=mode,
        bridge=None if bridge is None else bridge.get("name"),
        bridge_mac=_mac(mac),
        stp=bridge is None or bridge.get("stp", "on") != "off",
        forward_delay_s=0 if bridge is None else int(bridge.get("delay", "0")),
        mtu=None if mtu is None else int(mtu.get("size", "1500")),
        uplinks=() if forward is None else _uplinks(forward),
        domain=None if domain is None else domain.get("name"),
        dns=dns is None or dns.get("enable", "yes") != "no",
        ips=ips,
        routes=tuple(_route(element) for element in root.findall("route")),
        virtualport=None if virtualport is None else virtualport.get("type"),
        mac_table_manager=None if bridge is None else bridge.get("macTableManager"),
        portgroups=tuple(p.get("name", "") for p in root.findall("portgroup")),
        dnsmasq_options=options,
    )


def _with_ranges(
    ips: list[NetworkIp], options: list[str]
) -> tuple[tuple[NetworkIp, ...], tuple[str, ...]]:
    """Ranges that are given to dnsmasq itself belong to the `<ip>` that they lie in."""
    left: list[str] = []
    for option in options:
        match = _DHCP_RANGE.fullmatch(option)
        place = None if match is None else _place_of_range(ips, match)
        if match is None or place is None:
            left.append(option)
            continue
        one = DhcpRange(start=Ip(match["start"]), end=Ip(match["end"]))
        ips[place] = msgspec.structs.replace(ips[place], ranges=(*ips[place].ranges, one))
    return tuple(ips), tuple(left)


def _place_of_range(ips: list[NetworkIp], match: re.Match[str]) -> int | None:
    try:
        subnet = ipaddress.ip_network(f"{match['start']}/{match['mask']}", strict=False)
        inside = ipaddress.ip_address(match["end"]) in subnet
    except ValueError:
        return None
    for number, ip in enumerate(ips):
        own = ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network
        if inside and own == subnet:
            return number
    return None


def _mac(element: etree._Element | None) -> Mac | None:
    address = None if element is None else element.get("address") or element.get("mac")
    return None if address is None else parse_mac(address)


def _uplinks(forward: etree._Element) -> tuple[str, ...]:
    named = [forward.get("dev"), *(item.get("dev") for item in forward.findall("interface"))]
    return tuple(dict.fromkeys(name for name in named if name is not None))


def _route(element: etree._Element) -> str:
    """`192.0.2.0/24 via 192.168.122.2`, for people."""
    address, gateway = element.get("address", "?"), element.get("gateway", "?")
    length = element.get("prefix") or element.get("netmask")
    return f"{address}/{length} via {gateway}" if length else f"{address} via {gateway}"


def _ip(element: etree._Element) -> NetworkIp:
    address = parse_ip(element.get("address", ""))
    family: Family = 6 if element.get("family") == "ipv6" or ":" in address else 4
    ranges = element.findall("dhcp/range")
    return NetworkIp(
        family=family,
        address=address,
        prefix_len=_prefix_len(element, address, family),
        ranges=tuple(
            DhcpRange(start=parse_ip(r.get("start", "")), end=parse_ip(r.get("end", "")))
            for r in ranges
        ),
        reservations=tuple(_reservation(host) for host in element.findall("dhcp/host")),
        lease_s=next((_lease(x) for r in ranges if (x := r.find("lease")) is not None), None),
    )


def _prefix_len(element: etree._Element, address: Ip, family: Family) -> int:
    prefix, netmask = element.get("prefix"), element.get("netmask")
    if prefix is not None:
        return ipaddress.ip_interface(f"{address}/{int(prefix)}").network.prefixlen
    if netmask is not None:
        return ipaddress.ip_interface(f"{address}/{netmask}").network.prefixlen
    if family == 6:
        return 64
    # libvirt falls back to the address's old class (virSocketAddrGetIPPrefix)
    first = int(address.split(".")[0])
    return 8 if first < 128 else 16 if first < 192 else 24


def _reservation(host: etree._Element) -> Reservation:
    mac = host.get("mac")
    return Reservation(
        ip=parse_ip(host.get("ip", "")),
        mac=None if mac is None else parse_mac(mac),
        name=host.get("name"),
        id=host.get("id"),
    )


def _lease(element: etree._Element) -> int:
    """Seconds; libvirt counts in minutes where no unit is given; 0 means for ever."""
    unit = element.get("unit", "minutes")
    if unit not in _LEASE_UNITS:
        raise ValueError(f"{unit!a} is not a unit of a lease's time")
    return int(element.get("expiry", "0")) * _LEASE_UNITS[unit]


def render(name: str, config: NetworkConfig, uuid: str = "") -> str:
    """The XML that defines such a network. `parse` of it gives the same config again."""
    root = etree.Element("network", nsmap={"dnsmasq": DNSMASQ_NAMESPACE})
    etree.SubElement(root, "name").text = name
    if uuid:
        etree.SubElement(root, "uuid").text = uuid
    if config.mode != "isolated":
        _render_forward(root, config)
    if config.bridge is not None:
        bridge = etree.SubElement(root, "bridge", name=config.bridge)
        if config.mode != "bridge":
            bridge.set("stp", "on" if config.stp else "off")
            bridge.set("delay", str(config.forward_delay_s))
        if config.mac_table_manager is not None:
            bridge.set("macTableManager", config.mac_table_manager)
    if config.mtu is not None:
        etree.SubElement(root, "mtu", size=str(config.mtu))
    if config.bridge_mac is not None:
        etree.SubElement(root, "mac", address=config.bridge_mac)
    if config.domain is not None:
        etree.SubElement(root, "domain", name=config.domain, localOnly="yes")
    if not config.dns:
        etree.SubElement(root, "dns", enable="no")
    split = _needs_split(config)
    for ip in config.ips:
        _render_ip(root, msgspec.structs.replace(ip, ranges=()) if split and ip.family == 4 else ip)
    extra = _range_options(config) if split else ()
    if config.dnsmasq_options or extra:
        options = etree.SubElement(root, f"{{{DNSMASQ_NAMESPACE}}}options")
        for value in (*config.dnsmasq_options, *extra):
            etree.SubElement(options, f"{{{DNSMASQ_NAMESPACE}}}option", value=value)
    etree.cleanup_namespaces(root)
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def _needs_split(config: NetworkConfig) -> bool:
    """Whether DHCP serves several IPv4 subnets: libvirt takes `<dhcp>` in one of them only, and
    would limit all leases to the size of that one's ranges."""
    serving = [ip for ip in config.ips if ip.family == 4 and ip.ranges]
    return len(serving) > 1 and all(x.lease_s is None for x in serving)


def _range_options(config: NetworkConfig) -> tuple[str, ...]:
    """The IPv4 ranges as dnsmasq(8) takes them."""
    return tuple(
        f"dhcp-range={one.start},{one.end},"
        f"{ipaddress.ip_network((ip.address, ip.prefix_len), strict=False).netmask}"
        for ip in config.ips
        if ip.family == 4
        for one in ip.ranges
    )


def _render_forward(root: etree._Element, config: NetworkConfig) -> None:
    forward = etree.SubElement(root, "forward", mode=config.mode)
    if config.uplinks:
        forward.set("dev", config.uplinks[0])


def _render_ip(root: etree._Element, ip: NetworkIp) -> None:
    element = etree.SubElement(root, "ip")
    if ip.family == 6:
        element.set("family", "ipv6")
    element.set("address", ip.address)
    element.set("prefix", str(ip.prefix_len))
    if not ip.ranges and not ip.reservations:
        return
    dhcp = etree.SubElement(element, "dhcp")
    for one in ip.ranges:
        addresses = etree.SubElement(dhcp, "range", start=one.start, end=one.end)
        if ip.lease_s is not None:
            etree.SubElement(addresses, "lease", expiry=str(ip.lease_s), unit="seconds")
    for reservation in ip.reservations:
        host = etree.SubElement(dhcp, "host")
        for attribute, value in (
            ("mac", reservation.mac),
            ("id", reservation.id),
            ("name", reservation.name),
            ("ip", reservation.ip),
        ):
            if value is not None:
                host.set(attribute, value)
