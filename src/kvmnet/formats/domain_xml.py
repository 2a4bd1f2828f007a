"""A guest's NICs out of its domain XML (https://libvirt.org/formatdomain.html).

The XML may come from a file of unknown origin: entities are not resolved, nothing is fetched, a
document type is refused.
"""

from __future__ import annotations

from typing import Literal

from lxml import etree
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.values import parse_mac
from kvmnet.model.virt import GuestNic

AgentState = Literal["none", "disconnected", "connected"]
AGENT_CHANNEL = "org.qemu.guest_agent.0"


_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False,
    remove_comments=True, remove_pis=True, encoding="utf-8",
)  # fmt: skip
"""Making one costs more than reading a definition with it; lxml lets threads use it in turn."""


class ParsedGuest(Struct, frozen=True, kw_only=True):
    """What one domain XML says about networking."""

    name: str
    uuid: str
    id: int | None
    nics: tuple[GuestNic, ...]
    agent: AgentState


def parse_root(text: str, tag: str) -> etree._Element:
    """The root element of an XML document, which must be a `tag`. Raises `InvalidInput`."""
    try:
        root = etree.fromstring(text.encode("utf-8"), _PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise InvalidInput(f"this is not a {tag} XML document", why=str(error)) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise InvalidInput(
            f"this {tag} XML document is not accepted",
            why="it has a document type (DOCTYPE), which libvirt never writes",
        )
    if root.tag != tag:
        raise InvalidInput(f"this is not a {tag} XML document", why=f"its root is <{root.tag!s}>")
    return root


def parse(text: str) -> ParsedGuest:
    """What a domain XML, live or saved, says about networking. Raises `InvalidInput`."""
    return _parsed(parse_root(text, "domain"))


def parse_status(text: str) -> ParsedGuest:
    """The same of the file that libvirt keeps of a running guest. Raises `InvalidInput`."""
    return _parsed(only_child(parse_root(text, "domstatus"), "domain"))


def only_child(root: etree._Element, tag: str) -> etree._Element:
    """The child that a status file is about. Raises `InvalidInput` if there is none."""
    child = root.find(tag)
    if child is None:
        raise InvalidInput(f"this {root.tag!s} XML document has no <{tag}>")
    return child


def _parsed(root: etree._Element) -> ParsedGuest:
    number = root.get("id")
    devices = root.find("devices")
    return ParsedGuest(
        name=root.findtext("name") or "",
        uuid=root.findtext("uuid") or "",
        id=int(number) if number is not None and number.isdecimal() else None,
        nics=tuple(map(_nic, devices.iterfind("interface"))) if devices is not None else (),
        agent=_agent(devices) if devices is not None else "none",
    )


def _nic(element: etree._Element) -> GuestNic:
    child = {str(x.tag): x for x in reversed(element)}
    kind = element.get("type") or ""
    source = child.get("source")
    # The XML of a running guest names the kind that its network turned out to have, for instance
    # `bridge`; it still is a NIC on that network where the network's name is given.
    on_network = source is not None and source.get("network") is not None
    vlan = child.get("vlan")
    mac = _get(child, "mac", "address")
    return GuestNic(
        mac=parse_mac(mac) if mac else None,
        type="network" if on_network else kind,
        source=_source(kind, source),
        bridge=source.get("bridge") if on_network and source is not None else None,
        source_mode=source.get("mode") if source is not None else None,
        portgroup=source.get("portgroup") if source is not None else None,
        target=_get(child, "target", "dev"),
        model=_get(child, "model", "type"),
        alias=_get(child, "alias", "name"),
        link_up=_get(child, "link", "state") != "down",
        mtu=_number(_get(child, "mtu", "size")),
        boot_order=_number(_get(child, "boot", "order")),
        filter=_get(child, "filterref", "filter"),
        filter_ips=_filter_ips(child.get("filterref")),
        trusts_guest_filters=element.get("trustGuestRxFilters") == "yes",
        virtualport=_get(child, "virtualport", "type"),
        vlans=_vlans(vlan) if vlan is not None else (),
        backend=_get(child, "backend", "type"),
    )


def _get(child: dict[str, etree._Element], tag: str, attribute: str) -> str | None:
    element = child.get(tag)
    return element.get(attribute) if element is not None else None


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise InvalidInput(f"{text[:20]!a} is not a number", why="it stands in an <interface>")
    return int(text)


def _source(kind: str, source: etree._Element | None) -> str | None:
    if source is None:
        return None
    for attribute in ("network", "bridge", "dev", "name", "path"):
        value = source.get(attribute)
        if value is not None:
            return value
    address, port = source.get("address"), source.get("port")
    if kind in {"server", "client", "mcast", "udp"} and port is not None:
        return f"{address or ''}:{port}"
    return None


def _filter_ips(element: etree._Element | None) -> tuple[str, ...]:
    found = element.iterfind("parameter") if element is not None else ()
    values = (x.get("value") for x in found if x.get("name") == "IP")
    return tuple(x for x in values if x)


def _vlans(element: etree._Element) -> tuple[int, ...]:
    numbers = (_number(tag.get("id")) for tag in element.iterfind("tag"))
    return tuple(x for x in numbers if x is not None)


def _agent(devices: etree._Element) -> AgentState:
    for channel in devices.iterfind("channel"):
        target = channel.find("target")
        if target is not None and target.get("name") == AGENT_CHANNEL:
            return "connected" if target.get("state") == "connected" else "disconnected"
    return "none"
