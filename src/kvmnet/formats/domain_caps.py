"""libvirt's domain capabilities: what a guest's definition may say on this host.

https://libvirt.org/formatdomaincaps.html
"""

from __future__ import annotations

from kvmnet.formats.domain_xml import parse_root


def net_backends(xml: str) -> frozenset[str] | None:
    """The backends that a NIC may name; None: this libvirt is too old to tell.

    Raises `InvalidInput`.
    """
    root = parse_root(xml, "domainCapabilities")
    enum = root.find("devices/interface/enum[@name='backendType']")
    if enum is None:
        return None
    return frozenset(x.text or "" for x in enum.iterfind("value"))
