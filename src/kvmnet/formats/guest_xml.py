"""Pieces of a guest's definition that libvirt is given back: one `<interface>`, or a new name.

Libvirt's own XML only: what files of unknown origin need is in `domain_edit`.
"""

from __future__ import annotations

from typing import Literal

from lxml import etree

from kvmnet.formats import domain_edit, domain_xml
from kvmnet.formats.domain_edit import NicEdit
from kvmnet.model.values import Mac
from kvmnet.model.virt import GuestNic

_LIBVIRTS = ("target", "alias", "address")
"""What libvirt chose when the guest started: the tap, the device's name and its slot."""


def nic_texts(xml: str) -> tuple[str, ...]:
    """Each `<interface>` as it stands there."""
    return domain_edit.read(xml.encode()).texts


def nics(xml: str) -> tuple[GuestNic, ...]:
    """The NICs of a definition, understood."""
    return domain_xml.parse(xml).nics


def converted(xml: str, edits: list[NicEdit]) -> domain_edit.Converted:
    """The definition with these edits. Raises `Refused`."""
    return domain_edit.convert(domain_edit.read(xml.encode()), edits)


def find(xml: str, mac: Mac) -> tuple[GuestNic, str] | None:
    """The NIC with that address, understood and as text."""
    for nic, text in zip(nics(xml), nic_texts(xml), strict=True):
        if nic.mac == mac:
            return nic, text
    return None


def with_device_of(nic: str, running: str) -> str:
    """The NIC with the tap, alias and slot that the running one has."""
    wanted, present = _parsed(nic), _parsed(running)
    for tag in _LIBVIRTS:
        for old in wanted.findall(tag):
            wanted.remove(old)
        for child in present.findall(tag):
            wanted.append(child)
    return _text(wanted)


def with_link(nic: str, state: Literal["up", "down"]) -> str:
    """The NIC with its cable in or out."""
    element = _parsed(nic)
    link = element.find("link")
    if link is None:
        link = etree.SubElement(element, "link")
    link.set("state", state)
    return _text(element)


def renamed(xml: str, name: str) -> str:
    """The definition for a guest that is called otherwise now."""
    root = domain_xml.parse_root(xml, "domain")
    found = root.find("name")
    if found is None or found.text == name:
        return xml
    found.text = name
    return _text(root)


def rest(xml: str) -> bytes:
    """All of a definition but its NICs and its name, to compare two of one guest."""
    root = domain_xml.parse_root(xml, "domain")
    for found in root.findall("name"):
        root.remove(found)
    for devices in root.findall("devices"):
        for nic in devices.findall("interface"):
            devices.remove(nic)
    parser = etree.XMLParser(remove_blank_text=True, resolve_entities=False, no_network=True)
    return etree.tostring(etree.fromstring(etree.tostring(root), parser), method="c14n")


def new_nic(kind: str, source: dict[str, str], mac: Mac, model: str, backend: str | None) -> str:
    """A new NIC."""
    element = etree.Element("interface", {"type": kind})
    etree.SubElement(element, "mac", {"address": str(mac)})
    if source:
        etree.SubElement(element, "source", source)
    etree.SubElement(element, "model", {"type": model})
    if backend is not None:
        etree.SubElement(element, "backend", {"type": backend})
    return _text(element)


def _parsed(text: str) -> etree._Element:
    return domain_xml.parse_root(text, "interface")


def _text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
