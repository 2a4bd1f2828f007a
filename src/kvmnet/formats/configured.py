"""The bridges in host network managers' files, whichever of their formats it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_interface

from kvmnet.errors import InvalidInput
from kvmnet.formats import networkd_units as units
from kvmnet.formats import networkmanager as nm
from kvmnet.formats.interfaces import Stanza
from kvmnet.formats.netplan import NetplanDevice
from kvmnet.model.handover import FileState
from kvmnet.model.host import Link
from kvmnet.model.setup import ConfiguredBridge, ConfiguredPort
from kvmnet.model.values import Cidr

_YES = frozenset({"yes", "true", "on", "1"})
_NO = frozenset({"no", "false", "off", "0"})
_PATTERNS = frozenset({"none", "all", "regex", "noregex"})


def of_netplan(devices: Iterable[NetplanDevice], links: Sequence[Link]) -> list[ConfiguredBridge]:
    """Bridges of netplan's YAML; a port is an id there, defined elsewhere or a NIC's own name."""
    known = tuple(devices)
    found = []
    for bridge in known:
        if bridge.kind == "bridges":
            ports = (_netplan_port(bridge, id, known, links) for id in bridge.interfaces)
            found.append(
                ConfiguredBridge(
                    name=bridge.id, manager="netplan", path=bridge.path, ports=tuple(ports)
                )
            )
    return found


def _netplan_port(
    bridge: NetplanDevice, id: str, known: Sequence[NetplanDevice], links: Sequence[Link]
) -> ConfiguredPort:
    defined = [x for x in known if x.id == id]
    link = next((x.name for x in links for one in defined if one.matches(x)), None)
    if not defined:
        link = _named(id, links)
    matches = [wanted for x in defined if (wanted := x.match_mac or x.match_name) is not None]
    return ConfiguredPort(name=(matches or [id])[0], path=(defined or [bridge])[0].path, link=link)


def of_networkd(files: Iterable[FileState], links: Sequence[Link]) -> list[ConfiguredBridge]:
    """Bridges of .netdev units; not those that netplan generates, which are netplan's."""
    own = tuple(x for x in files if not x.path.rpartition("/")[2].startswith("10-netplan-"))
    networks = [(x, _merged(own, x)) for x in units.effective(own, ".network").values()]
    found = []
    for file in units.effective(own, ".netdev").values():
        netdev = _merged(own, file)
        name = _last(netdev, "NetDev", "Name")
        if _last(netdev, "NetDev", "Kind") != "bridge" or not name:
            continue
        ports = []
        for unit, sections in networks:
            if _last(sections, "Network", "Bridge") == name:
                ports += _networkd_ports(unit.path, sections, links)
        found.append(_with_network(name, file.path, tuple(ports), networks))
    return found


def _merged(files: tuple[FileState, ...], unit: FileState) -> tuple[units.Section, ...]:
    try:
        return units.merged(files, unit)
    except InvalidInput:
        return ()  # networkd leaves out what it does not understand


def _networkd_ports(
    path: str, sections: tuple[units.Section, ...], links: Sequence[Link]
) -> list[ConfiguredPort]:
    """The ports that a .network unit names; nothing where it matches by other means."""
    names = [x for value in units.values(sections, "Match", "Name") for x in value.split()]
    macs = [
        x.lower()
        for key in ("MACAddress", "PermanentMACAddress")
        for value in units.values(sections, "Match", key)
        for x in value.split()
    ]
    if macs:
        link = next((x.name for x in links if x.mac in macs and x.kind != "bridge"), None)
        return [ConfiguredPort(name=macs[0], path=path, link=link)]
    return [
        ConfiguredPort(name=x, path=path, link=_named(x, links))
        for x in names
        if not x.startswith("!")
    ]


def _with_network(
    name: str,
    path: str,
    ports: tuple[ConfiguredPort, ...],
    networks: list[tuple[FileState, tuple[units.Section, ...]]],
) -> ConfiguredBridge:
    """The bridge with what its own .network unit says: the first that matches it."""
    for unit, sections in networks:
        names = [x for value in units.values(sections, "Match", "Name") for x in value.split()]
        if not any(fnmatchcase(name, x) for x in names):
            continue
        written = [
            *units.values(sections, "Network", "Address"),
            *units.values(sections, "Address", "Address"),
        ]
        stays = (_last(sections, "Network", "ConfigureWithoutCarrier") or "no").lower()
        policy = _last(sections, "Link", "ActivationPolicy") or "up"
        return ConfiguredBridge(
            name=name, manager="systemd-networkd", path=unit.path, ports=ports,
            at_boot=policy in {"up", "always-up", "bound"},
            addresses=_addresses(written), needs_carrier=stays not in _YES,
        )  # fmt: skip
    return ConfiguredBridge(name=name, manager="systemd-networkd", path=path, ports=ports)


def _last(sections: tuple[units.Section, ...], section: str, key: str) -> str | None:
    return (units.values(sections, section, key) or (None,))[-1]


def of_networkmanager(
    profiles: Iterable[tuple[str, str]], links: Sequence[Link]
) -> list[ConfiguredBridge]:
    """Bridges of keyfiles (path and text); not those that netplan generates."""
    parsed = [
        (path, nm.parse_keyfile(text))
        for path, text in profiles
        if not path.rpartition("/")[2].startswith("netplan-")
    ]
    found = []
    for path, file in parsed:
        name = file.get("connection", "interface-name")
        if file.get("connection", "type") != "bridge" or not name:
            continue
        masters = {name, file.get("connection", "uuid"), file.get("connection", "id")}
        ports = [
            _nm_port(other, port, links)
            for other, port in parsed
            if _controller(port) in masters and _controller(port)
        ]
        auto = (file.get("connection", "autoconnect") or "true").lower() not in _NO
        found.append(
            ConfiguredBridge(
                name=name,
                manager="NetworkManager",
                path=path,
                ports=tuple(x for x in ports if x is not None),
                at_boot=auto,
            )
        )
    return found


def _controller(profile: nm.Keyfile) -> str | None:
    return profile.get("connection", "controller") or profile.get("connection", "master")


def _nm_port(path: str, profile: nm.Keyfile, links: Sequence[Link]) -> ConfiguredPort | None:
    """The port of a profile; None for one that matches by other means, which may be anything."""
    name = profile.get("connection", "interface-name")
    mac = profile.get("ethernet", "mac-address") or profile.get("802-3-ethernet", "mac-address")
    if name is None and mac is None:
        return None
    if name is not None:
        return ConfiguredPort(name=name, path=path, link=_named(name, links))
    wanted = (mac or "").lower()
    link = next((x.name for x in links if x.mac == wanted and x.kind != "bridge"), None)
    return ConfiguredPort(name=wanted, path=path, link=link)


def of_ifupdown(stanzas: Sequence[Stanza], links: Sequence[Link]) -> list[ConfiguredBridge]:
    """Bridges of /etc/network/interfaces: bridge-utils-interfaces(5), ifupdown2 alike."""
    auto = {w for x in stanzas if x.keyword in {"auto", "allow-auto"} for w in x.words}
    found: dict[str, ConfiguredBridge] = {}
    for stanza in stanzas:
        if stanza.keyword != "iface" or not stanza.words:
            continue
        options = [(key.replace("-", "_"), value) for key, value in stanza.options]
        named = next((value for key, value in options if key == "bridge_ports"), None)
        if named is None or stanza.words[0] in found:
            continue
        words = () if _PATTERNS & set(named.split()) else named.split()
        found[stanza.words[0]] = ConfiguredBridge(
            name=stanza.words[0],
            manager="ifupdown",
            path=stanza.path,
            ports=tuple(
                ConfiguredPort(name=x, path=stanza.path, link=_named(x, links)) for x in words
            ),
            at_boot=stanza.words[0] in auto,
        )
    return list(found.values())


def _named(pattern: str, links: Sequence[Link]) -> str | None:
    names = ((name, x.name) for x in links for name in (x.name, *x.altnames))
    return next((link for name, link in names if fnmatchcase(name, pattern)), None)


def _addresses(texts: Iterable[str]) -> tuple[Cidr, ...]:
    found = []
    for text in texts:
        try:
            found.append(Cidr(str(ip_interface(text.strip()))))
        except ValueError:
            continue
    return tuple(found)
