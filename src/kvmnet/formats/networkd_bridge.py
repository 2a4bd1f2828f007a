"""A bridge that takes over a NIC's place, in systemd-networkd's files (systemd.network(5)).

The NIC's own file is never touched, since it may serve others and may belong to a package: new
files that are read before it (the first that matches a link is in force) say that the NIC is a
port, and give the bridge the addressing that the old file has.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import networkd_calls as calls
from kvmnet.formats import networkd_split as split
from kvmnet.formats import networkd_units as units
from kvmnet.formats.networkd_units import Section
from kvmnet.model.handover import FileState, HandedOver, LinkUnit
from kvmnet.model.networkd import NetworkdLink, NetworkdView
from kvmnet.model.takeover import BridgePort, Takeover

FOLDER = "/etc/systemd/network"
_PREFIXES = ("50-kvmnet-", "10-kvmnet-", "05-kvmnet-", "00-kvmnet-", "00-00-kvmnet-")
_PLAIN_NAME = re.compile(r"[\w.:+@-]+", re.ASCII)
_OURS = "-kvmnet-"
NOTE_KEPT = (
    "until the next boot networkd keeps the addresses of {bridge} even where a DHCP lease runs out:"
    " KeepConfiguration=yes in /run is what lets it take them over without a gap"
)


def create(view: NetworkdView, takeover: Takeover) -> HandedOver:
    """The bridge becomes the heir of its first port. Raises `Refused` or `InvalidInput`."""
    _check_free(view, takeover)
    prefix = choose_prefix(view)
    heir = _heir(view, takeover)
    old = sections_in_force(view, heir) if heir else ()
    made = [
        _file(f"{prefix}{takeover.bridge}.netdev", netdev_text(takeover)),
        _file(f"{prefix}{takeover.bridge}.network", _bridge_text(takeover, heir, old)),
        *(_port_file(view, prefix, takeover.bridge, x) for x in takeover.ports),
    ]
    bridge_unit = made[1].path
    expected = [
        LinkUnit(link=takeover.bridge, unit=bridge_unit, leased=is_leased(heir, takeover)),
        *(LinkUnit(link=x.name, unit=_port_path(prefix, x.name)) for x in takeover.ports),
    ]
    released = tuple(x.name for x in takeover.ports)
    notes = [NOTE_KEPT.format(bridge=takeover.bridge)]
    notes += _notes(view, takeover, heir, old)
    return HandedOver(
        files=tuple(made),
        files_before=_before(view, made),
        calls=(calls.adopt((bridge_unit,), tuple(expected), (takeover.bridge,)),),
        calls_back_first=(calls.release(prefix, released),),
        calls_back=(calls.take_back(view, prefix, released, bridge_unit),),
        notes=tuple(notes),
    )


def _check_free(view: NetworkdView, takeover: Takeover) -> None:
    for name in (takeover.bridge, *(x.name for x in takeover.ports)):
        if not _PLAIN_NAME.fullmatch(name):
            raise InvalidInput(
                f"{name} can not be named in networkd's files", why="it would match other links too"
            )
    other = _netdev(view, takeover.bridge)
    if other is not None:
        raise Refused(f"networkd makes a {takeover.bridge} already", why=f"{other.path} says so")


def _netdev(view: NetworkdView, bridge: str) -> FileState | None:
    for file in units.effective(view.files, ".netdev").values():
        if bridge in units.values(units.merged(view.files, file), "NetDev", "Name")[-1:]:
            return file
    return None


def choose_prefix(view: NetworkdView) -> str:
    """How new files are to begin so that they are read before all others; `Refused` if none is."""
    names = [x for x in units.effective(view.files, ".network") if _OURS not in x]
    found = next((p for p in _PREFIXES if all(p < x for x in names)), None)
    if found is None:
        raise Refused(
            "no name for a file of networkd comes before the others",
            why=f"{min(names)} comes first of all",
            hint=f"rename {min(names)} so that it begins with a number above 00",
        )
    return found


def _heir(view: NetworkdView, takeover: Takeover) -> NetworkdLink | None:
    if takeover.heir_of is None or takeover.address == "none":
        return None
    link = view.link(takeover.heir_of)
    if link is None or link.unit is None or link.state in ("unmanaged", "linger"):
        raise Refused(
            f"networkd does not manage {takeover.heir_of}",
            why="no .network file of it is in force for the link",
            hint="networkctl status",
        )
    if PurePosixPath(link.unit).name.startswith("10-netplan-"):
        raise Refused(f"{takeover.heir_of} is netplan's", why=f"netplan wrote {link.unit}")
    return link


def sections_in_force(view: NetworkdView, link: NetworkdLink) -> tuple[Section, ...]:
    """What is in force for a link."""
    file = units.effective(view.files, ".network").get(PurePosixPath(link.unit or "").name)
    if file is None or file.path != link.unit:
        raise Refused(
            f"networkd has not read its files since they were changed ({link.name})",
            why=f"it still goes by {link.unit}",
            hint="networkctl reload",
        )
    return units.merged(view.files, file)


def netdev_text(takeover: Takeover) -> str:
    """The .netdev file (systemd.netdev(5)): a bridge with a pinned MAC."""
    lines = ["[NetDev]", f"Name={takeover.bridge}", "Kind=bridge", f"MACAddress={takeover.mac}"]
    lines += [f"MTUBytes={takeover.mtu}"] if takeover.mtu != 1500 else []
    lines += ["", "[Bridge]", f"STP={_yes_no(takeover.stp)}"]
    delay = takeover.forward_delay_s
    if delay is not None or not takeover.stp:
        lines.append(f"ForwardDelaySec={delay or 0:g}")
    lines += ["VLANFiltering=yes"] if takeover.vlan_filtering else []
    return _headed(f"Bridge {takeover.bridge}, made by kvmnet.", "\n".join(lines) + "\n")


def _bridge_text(takeover: Takeover, heir: NetworkdLink | None, old: tuple[Section, ...]) -> str:
    head = f"[Match]\nName={takeover.bridge}\n"
    if takeover.address == "keep" and heir is not None:
        body = split.for_bridge(old, heir.name, takeover.bridge)
        source = f"The addressing of {takeover.bridge}: that of {heir.name} in {heir.unit}."
        return _headed(source, head + _joined(body) + identity(heir, body))
    split.check(old)
    text = {
        "dhcp": "DHCP=ipv4\n",
        "none": "LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n",
        "keep": "LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n",
    }.get(takeover.address, f"Address={takeover.address}\n")
    if not takeover.ports and "Without" not in text:
        text += "ConfigureWithoutCarrier=yes\n"
    needed = "" if takeover.ports and heir else "\n[Link]\nRequiredForOnline=no\n"
    known = identity(heir, ()) if heir and takeover.address == "dhcp" else ""
    said = f"The addressing of {takeover.bridge}."
    return _headed(said, f"{head}{needed}\n[Network]\n{text}{known}")


def is_leased(heir: NetworkdLink | None, takeover: Takeover) -> bool:
    """Whether the bridge has to get the lease that the NIC has."""
    return heir is not None and heir.client_id is not None and takeover.address == "keep"


def identity(heir: NetworkdLink, sections: tuple[Section, ...]) -> str:
    """What makes the DHCP servers know the host again: the IAID is by default made of the NIC.

    networkd computes it from udev's name of the link or from its MAC (systemd.network(5), IAID=);
    the bridge's would be another one.
    """
    kinds = {*units.values(sections, "DHCPv4", "ClientIdentifier")}
    kinds |= {*units.values(sections, "DHCP", "ClientIdentifier")}
    text = ""
    named = [n for n in ("DHCP", "DHCPv4") if units.values(sections, n, "IAID")]
    if heir.iaid4 is not None and not named and kinds <= {"duid"}:
        text += f"\n[DHCPv4]\nIAID={heir.iaid4}\n"
    if heir.iaid6 is not None and not units.values(sections, "DHCPv6", "IAID"):
        text += f"\n[DHCPv6]\nIAID={heir.iaid6}\n"
    return f"\n# The identity that DHCP servers know {heir.name} by.{text}" if text else ""


def _port_path(prefix: str, nic: str) -> str:
    return f"{FOLDER}/{prefix}{nic}.network"


def _port_file(view: NetworkdView, prefix: str, bridge: str, port: BridgePort) -> FileState:
    link = view.link(port.name)
    managed = link is not None and link.unit is not None
    old = split.for_port(sections_in_force(view, link)) if link is not None and managed else ()
    if link is not None and managed:
        split.check(sections_in_force(view, link))
    own = [x for x in old if x.name != "Network"]
    stays = "".join(x.text.split("]\n", 1)[1] for x in old if x.name == "Network")
    network = f"[Network]\nBridge={bridge}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n{stays}"
    said = f"{port.name} is a port of bridge {bridge}, made by kvmnet."
    mark = f"\n[X-Kvmnet]\nBridge={bridge}\n"
    if link is not None and link.unit is not None:
        said += f" This is read instead of {link.unit}."
        mark += f"InsteadOf={link.unit}\n"
    text = f"{match_text(port, link)}\n{network}{_joined(own)}{mark}"
    return _file(f"{prefix}{port.name}.network", _headed(said, text))


def match_text(port: BridgePort, link: NetworkdLink | None) -> str:
    """A real NIC is matched by its burnt-in MAC, so that it may be renamed.

    VLANs and bonds have it too, but a kind; where an old networkd does not know `Kind=`, `Type=`
    rules them out. Software devices and NICs with another MAC are matched by name.
    """
    if link is not None and link.permanent_mac is not None and not link.virtual:
        return f"[Match]\nPermanentMACAddress={link.permanent_mac}\nType=ether\nKind=!*\n"
    return f"[Match]\nName={port.name}\n"


def set_ports(view: NetworkdView, before: Takeover, after: Takeover) -> HandedOver:
    """Ports come and go; the bridge's own configuration stays. Raises `Refused`."""
    if _netdev(view, after.bridge) is None:
        raise NotFound(f"networkd makes no bridge {after.bridge}", hint="networkctl list")
    prefix = choose_prefix(view)
    known = {x.name for x in before.ports}
    added = [x for x in after.ports if x.name not in known]
    left = {x.name for x in after.ports}
    gone = tuple(x.name for x in before.ports if x.name not in left)
    made = [_port_file(view, prefix, after.bridge, x) for x in added]
    made += [FileState(path=_own_port(view, after.bridge, x).path, text=None) for x in gone]
    joined = tuple(LinkUnit(link=x.name, unit=_port_path(prefix, x.name)) for x in added)
    names = tuple(x.name for x in added)
    return HandedOver(
        files=tuple(made),
        files_before=_before(view, made),
        calls_first=(calls.release(prefix, gone),) if gone else (),
        calls=(calls.settle(prefix, gone, joined, (after.bridge,)),),
        calls_back_first=(calls.release(prefix, names),) if names else (),
        calls_back=(calls.settle(prefix, names, (), (after.bridge,)),),
    )


def _own_port(view: NetworkdView, bridge: str, nic: str) -> FileState:
    link = view.link(nic)
    name = PurePosixPath((link.unit if link else None) or "").name
    file = units.effective(view.files, ".network").get(name)
    if file is None or bridge not in units.values(_parsed(file), "X-Kvmnet", "Bridge"):
        raise Refused(
            f"{nic} is a port of {bridge} by a file that is not kvmnet's",
            why=f"{file.path} is in force" if file else "networkd has no file for it",
            hint=f"take Bridge={bridge} out of that file, then run networkctl reload",
        )
    return file


def _parsed(file: FileState) -> tuple[Section, ...]:
    return units.parse(file.text or "", file.path)


def delete(view: NetworkdView, takeover: Takeover) -> HandedOver:
    """The bridge goes and its addressing returns to the NIC whose heir it is.

    Where the bridge's file still says what the NIC's own file says, that one simply is in force
    again; else the NIC gets a file with what the bridge has now. Raises `Refused`, `NotFound`.
    """
    netdev = _netdev(view, takeover.bridge)
    link = view.link(takeover.bridge)
    files = units.effective(view.files, ".network")
    own = files.get(PurePosixPath((link.unit if link else None) or "").name)
    if netdev is None or own is None:
        raise NotFound(f"networkd makes no bridge {takeover.bridge}", hint="networkctl list")
    prefix = choose_prefix(view)
    ports = [_own_port(view, takeover.bridge, x.name) for x in takeover.ports]
    for file in (netdev, own, *ports):
        if not file.path.startswith("/etc/"):
            raise Refused(f"{file.path} can not be removed", why="it is not the administrator's")
    gone = {x.path: FileState(path=x.path, text=None) for x in (netdev, own, *ports)}
    gone |= {x.path: FileState(path=x.path, text=None) for x in units.drop_ins(view.files, own.path)
             if x.path.startswith("/etc/")}  # fmt: skip
    nic_unit = None
    if takeover.heir_of is not None:
        nic_unit, written = _give_back(view, takeover, own, prefix)
        gone |= {written.path: written} if written else {}
    made = list(gone.values())
    names = tuple(x.name for x in takeover.ports)
    back = tuple(LinkUnit(link=x.name, unit=p.path)
                 for x, p in zip(takeover.ports, ports, strict=True))  # fmt: skip
    returned = (LinkUnit(link=takeover.heir_of, unit=nic_unit),) if takeover.heir_of else ()
    again = calls.adopt(
        (own.path,), (LinkUnit(link=takeover.bridge, unit=own.path), *back), (takeover.bridge,)
    )
    return HandedOver(
        files=tuple(made),
        files_before=_before(view, made),
        calls_first=(calls.release(prefix, names),),
        calls=(calls.without(calls.give_back(view, prefix, names, returned), own.path),),
        calls_back=(calls.settled(prefix, names, again),),
    )


def _give_back(
    view: NetworkdView, takeover: Takeover, own: FileState, prefix: str
) -> tuple[str | None, FileState | None]:
    """Which file is in force for the NIC afterwards, and its new text if it needs one."""
    heir = next(x for x in takeover.ports if x.name == takeover.heir_of)
    port = _own_port(view, takeover.bridge, heir.name)
    said = units.values(_parsed(port), "X-Kvmnet", "InsteadOf")
    files = units.effective(view.files, ".network")
    old = files.get(PurePosixPath(said[-1]).name) if said else None
    now = split.for_bridge(units.merged(view.files, own), takeover.bridge, heir.name)
    if old is not None:
        before = split.for_bridge(units.merged(view.files, old), heir.name, heir.name)
        if _pairs(_without_identity(now, before)) == _pairs(before):
            return old.path, None
    kept = split.for_port(x for x in _parsed(port) if not x.name.startswith("X-"))
    body = [*kept, *_without_identity(now, ())]
    text = f"{match_text(heir, view.link(heir.name))}{_joined(body)}"
    said_text = f"The addressing of {heir.name}, as bridge {takeover.bridge} had it (kvmnet)."
    path = _port_path(prefix, heir.name)
    return path, FileState(path=path, text=_headed(said_text, text))


def _without_identity(
    sections: tuple[Section, ...], like: tuple[Section, ...]
) -> tuple[Section, ...]:
    """Without the IAIDs that `create` added: those that the NIC's own file does not name."""
    kept = []
    for section in sections:
        named = units.values(like, section.name, "IAID")
        entries = [x for x in section.entries if x.key != "IAID" or x.value in named]
        if entries or not section.entries:
            kept.append(section.of(entries))
    return tuple(kept)


def _pairs(sections: tuple[Section, ...]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(x.name, [(y.key, y.value) for y in x.entries]) for x in sections]


def _notes(
    view: NetworkdView,
    takeover: Takeover,
    heir: NetworkdLink | None,
    old: tuple[Section, ...],
) -> list[str]:
    notes = []
    if heir is not None:
        notes.append(f"{heir.unit} stays as it is, but is no longer in force for {heir.name}")
        named = units.values(old, "Network", "IPv6LinkLocalAddressGenerationMode")
        tokens = " ".join(units.values(old, "IPv6AcceptRA", "Token"))
        if "prefixstable" in tokens or "stable-privacy" in named:
            notes.append(
                f"IPv6 addresses of the kind stable-privacy depend on the link's name: after the"
                f" next boot {takeover.bridge} makes others than {heir.name} had"
            )
        for file in view.files:
            if heir.unit != file.path and _names(file, heir.name):
                notes.append(f"{file.path} names {heir.name} too: see whether it means the bridge")
    return notes


def _names(file: FileState, nic: str) -> bool:
    keys = {"UplinkInterface", "BindCarrier", "Local", "Interface", "OutgoingInterface"}
    try:
        found = _parsed(file)
    except InvalidInput:
        return False
    return any(y.key in keys and nic in y.value.split() for x in found for y in x.entries)


def _joined(sections: tuple[Section, ...] | list[Section]) -> str:
    return "".join("\n" + x.text.lstrip("\n") for x in sections)


def _headed(said: str, text: str) -> str:
    return f"# {said}\n{text}"


def _file(name: str, text: str) -> FileState:
    return FileState(path=f"{FOLDER}/{name}", text=text)


def _before(view: NetworkdView, made: list[FileState]) -> tuple[FileState, ...]:
    known = {x.path: x for x in view.files}
    return tuple(known.get(x.path, FileState(path=x.path, text=None)) for x in made)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
