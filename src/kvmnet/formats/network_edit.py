"""Small edits of a network's XML that leave everything else as it is."""

from __future__ import annotations

import ipaddress

from lxml import etree

from kvmnet.formats.domain_xml import parse_root
from kvmnet.model.edit import NetworkEdit
from kvmnet.model.values import Cidr
from kvmnet.model.virt import DhcpRange


def edit(text: str, change: NetworkEdit) -> str:
    """The network XML with `change` made to it. Raises `InvalidInput` if it is no network XML."""
    root = parse_root(text, "network")
    if change.bridge is not None:
        _child(root, "bridge").set("name", change.bridge)
    if change.stp is not None:
        bridge = _child(root, "bridge")
        bridge.set("stp", "on" if change.stp else "off")
        if not change.stp:
            bridge.set("delay", "0")
    if change.subnet is not None:
        _move(_first_v4(root), change.subnet)
    if change.dhcp_range is not None:
        _give_range(_first_v4(root), change.dhcp_range)
    return etree.tostring(root, encoding="unicode") + "\n"


def _child(parent: etree._Element, tag: str) -> etree._Element:
    found = parent.find(tag)
    return etree.SubElement(parent, tag) if found is None else found


def _first_v4(root: etree._Element) -> etree._Element:
    for element in root.findall("ip"):
        if element.get("family", "ipv4") == "ipv4":
            return element
    return etree.SubElement(root, "ip")


def _move(element: etree._Element, subnet: Cidr) -> None:
    """Move the address, the ranges and the reservations to another subnet, each at its place."""
    new = ipaddress.ip_network(subnet)
    old_address = element.get("address")
    if old_address is None:
        element.set("address", str(new.network_address + 1))
    else:
        old = ipaddress.ip_network(f"{old_address}/{new.prefixlen}", strict=False)
        shift = int(new.network_address) - int(old.network_address)
        places = [(element, "address")]
        places += [(r, end) for r in element.iterfind("dhcp/range") for end in ("start", "end")]
        places += [(host, "ip") for host in element.iterfind("dhcp/host")]
        for holder, attribute in places:
            value = holder.get(attribute)
            if value is not None:
                holder.set(attribute, str(ipaddress.ip_address(value) + shift))
    etree.strip_attributes(element, "netmask")
    element.set("prefix", str(new.prefixlen))


def _give_range(element: etree._Element, wanted: DhcpRange) -> None:
    etree.SubElement(_child(element, "dhcp"), "range", start=wanted.start, end=wanted.end)
