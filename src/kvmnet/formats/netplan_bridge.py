"""A bridge that takes over a NIC's place, in netplan's YAML.

The NIC's addressing goes to the bridge in the same file, word for word; files of which netplan
merges a device (in the order of their names) stay apart.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import netplan, netplan_keys, netplan_networkmanager, netplan_told
from kvmnet.formats.netplan_edit import NetplanText, Piece, rendered
from kvmnet.model.handover import FileState, HandedOver
from kvmnet.model.host import Link
from kvmnet.model.netplan import NetplanView
from kvmnet.model.networkd import NetworkdLink
from kvmnet.model.takeover import BridgePort, Takeover

FOLDER = "/etc/netplan"
NM = "NetworkManager"


class Device(Struct, frozen=True, kw_only=True):
    """A device as netplan merges it of all files."""

    kind: str
    id: str
    paths: tuple[str, ...]
    """The files that define it, in their order."""
    renderer: str
    shared: bool
    """Its `match` may hold for other NICs too (a wildcard, a driver)."""


class Work:
    """All files while they are edited."""

    def __init__(self, view: NetplanView) -> None:
        self.view = view
        self.texts = {x.path: NetplanText(x.text or "", x.path) for x in view.files}
        self._parsed = [netplan.parse(x.text or "", x.path) for x in view.files]

    def device(self, name: str) -> Device | None:
        """The definition that is in force for a link."""
        facts = self.view.networkd.link(name)
        link = Link(
            index=0,
            name=name,
            kind="ethernet",
            mac=(facts.permanent_mac or facts.mac) if facts else None,
            driver=facts.driver if facts else None,
        )
        found = sorted({(x.kind, x.id) for file in self._parsed for x in file.devices
                        if self._matches(x.kind, x.id, link)}, key=lambda x: x[1])  # fmt: skip
        if not found:
            return None
        unit = PurePosixPath((facts.unit if facts else None) or "").name
        used = [x for x in found if unit == f"10-netplan-{x[1]}.network"]
        return self.defined(*(used or found)[0])

    def defined(self, kind: str, id: str) -> Device:
        """A definition by kind and id."""
        parts = [x for f in self._parsed for x in f.devices if (x.kind, x.id) == (kind, id)]
        bodies = [self.texts[x.path].get("network", kind, id) or {} for x in parts]
        own = [str(x["renderer"]) for x in bodies if "renderer" in x]
        general = [x.renderer for x in self._parsed if x.renderer]
        names = [x.match_name for x in parts if x.match_name]
        by_driver = any(x.match_driver for x in parts)
        by_mac = any(x.match_mac for x in parts)
        wild = any(set(x) & set("*?[") for x in names)
        return Device(
            kind=kind,
            id=id,
            paths=tuple(dict.fromkeys(x.path for x in parts)),
            renderer=([*general, *own] or ["networkd"])[-1],
            shared=not by_mac and (wild or (by_driver and not names)),
        )

    def _matches(self, kind: str, id: str, link: Link) -> bool:
        parts = [x for f in self._parsed for x in f.devices if (x.kind, x.id) == (kind, id)]
        with_match = [x for x in parts if x.match_name or x.match_mac or x.match_driver]
        return all(x.matches(link) for x in with_match or parts[:1])

    def body(self, path: str, device: Device) -> dict[str, Any]:
        found = self.texts[path].get("network", device.kind, device.id)
        return dict(found) if isinstance(found, dict) else {}

    def changed(self) -> tuple[tuple[FileState, ...], tuple[FileState, ...]]:
        """The files that differ, as they are to be and as they are."""
        files, before = [], []
        known = {x.path: x for x in self.view.files}
        for path, text in self.texts.items():
            old = known[path]
            if text.text == old.text:
                continue
            if path.startswith("/run/"):
                raise Refused(f"{path} can not be kept", why="something makes it at each boot")
            target = f"{FOLDER}/{PurePosixPath(path).name}"
            files.append(
                FileState(path=target, text=text.text, mode=old.mode, uid=old.uid, gid=old.gid)
                if target == path
                else FileState(path=target, text=text.text, mode=0o600)
            )
            before.append(old if target == path else FileState(path=target, text=None))
        return tuple(files), tuple(before)


def create(view: NetplanView, takeover: Takeover) -> HandedOver:
    """The bridge becomes the heir of its first port. Raises `Refused` or `InvalidInput`."""
    work = Work(view)
    if any(x.kind == "bridges" and x.id == takeover.bridge for x in _all(work)):
        raise Refused(f"netplan makes a {takeover.bridge} already", hint="netplan get bridges")
    heir = work.device(takeover.heir_of) if takeover.heir_of else None
    if takeover.heir_of is not None and heir is None:
        raise Refused(f"netplan does not define {takeover.heir_of}", hint="netplan get")
    home = heir.paths[-1] if heir else _home(work)
    pieces = _inherited(work, heir, takeover)
    ids = tuple(_port(work, takeover, x, home) for x in takeover.ports)
    at = ("network", "bridges", takeover.bridge)
    renderer = _own_renderer(work, heir)
    told = heir.renderer if heir else _renderer(work)
    _check_renderers(work, takeover, told)
    value = _bridge_body(takeover, ids, renderer)
    if told == NM and (passed := netplan_networkmanager.passthrough(view, takeover)):
        value["networkmanager"] = {"passthrough": passed}
    work.texts[home].set(at, value)
    for path, piece in pieces:
        work.texts[path].put((*at, _key(piece)), piece)
    if told == NM:
        return netplan_networkmanager.create(work.view, takeover, work.changed(), ids)
    return netplan_told.create(work.view, takeover, work.changed(), ids)


def _check_renderers(work: Work, takeover: Takeover, renderer: str) -> None:
    """A bridge and its ports have one renderer."""
    for port in takeover.ports:
        device = work.device(port.name)
        own = device.renderer if device and not device.shared else _renderer(work)
        if own != renderer:
            raise Refused(
                f"netplan has {own} manage {port.name}",
                why=f"and {renderer} is to manage {takeover.bridge}",
                hint=f"give {port.name} the renderer {renderer}",
            )


def _key(piece: Piece) -> str:
    line = next(x for x in piece.lines if x and not x.startswith("#"))
    return line.split(":")[0].strip("\"' ")


def _all(work: Work) -> list[netplan.NetplanDevice]:
    return [x for path, text in work.texts.items() for x in netplan.parse(text.text, path).devices]


def _home(work: Work) -> str:
    """The file for a bridge that takes over nothing: the last one of the administrator's."""
    own = [x for x in work.texts if x.startswith("/etc/")]
    if not own:
        raise Refused("netplan has no file of the administrator's", why="/etc/netplan is empty")
    return own[-1]


def _renderer(work: Work) -> str:
    texts = work.texts.values()
    found = [str(x.get("network", "renderer")) for x in texts if x.get("network", "renderer")]
    return (found or ["networkd"])[-1]


def _own_renderer(work: Work, heir: Device | None) -> str | None:
    said = [work.body(x, heir).get("renderer") for x in heir.paths] if heir else []
    return next((str(x) for x in reversed(said) if x), None)


def _inherited(work: Work, heir: Device | None, takeover: Takeover) -> list[tuple[str, Piece]]:
    """The addressing of the NIC, taken out of its definition; of a shared one it is copied."""
    if heir is None:
        return _addressing(takeover, _home(work) if work.texts else "")
    found: list[tuple[str, Piece]] = []
    for path in heir.paths:
        text = work.texts[path]
        if heir.shared:
            text = NetplanText(text.text, path)
        for key in netplan_keys.moving(work.body(path, heir), heir.id):
            at = ("network", heir.kind, heir.id, key)
            found.append((path, text.copy(at) if key in netplan_keys.BOTH else text.cut(at)))
    return found if takeover.address == "keep" else _addressing(takeover, heir.paths[-1])


def _addressing(takeover: Takeover, path: str) -> list[tuple[str, Piece]]:
    body: dict[str, Any] = {
        "dhcp": {"dhcp4": True},
        "none": netplan_keys.NEUTRAL,
        "keep": netplan_keys.NEUTRAL,
    }.get(takeover.address, {"addresses": [takeover.address]})
    return [(path, Piece(rendered(key, value), value)) for key, value in body.items()]


def _bridge_body(takeover: Takeover, ids: tuple[str, ...], renderer: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"renderer": renderer} if renderer else {}
    body |= {"interfaces": list(ids), "macaddress": str(takeover.mac)}
    body |= {"mtu": takeover.mtu} if takeover.mtu != 1500 else {}
    delay = takeover.forward_delay_s
    parameters: dict[str, Any] = {"stp": takeover.stp}
    if delay is not None or not takeover.stp:
        if delay is not None and delay != int(delay):
            raise InvalidInput(f"netplan has whole seconds only, not {delay:g}")
        parameters["forward-delay"] = int(delay or 0)
    return {**body, "parameters": parameters}


def _port(work: Work, takeover: Takeover, port: BridgePort, home: str) -> str:
    """Have netplan know a port that has no addresses of its own; its id."""
    device = work.device(port.name)
    if device is None or device.shared:
        return _new_port(work, takeover, port, home, device)
    for path in device.paths:
        text = work.texts[path]
        at = ("network", device.kind, device.id)
        for key in netplan_keys.moving(work.body(path, device), device.id):
            if key not in netplan_keys.BOTH:
                text.cut((*at, key))
        if not work.body(path, device) and path != device.paths[-1]:
            text.cut(at)
            if not text.get("network", device.kind):
                text.cut(at[:2])
    _neutral(work.texts[device.paths[-1]], (device.kind, device.id))
    return device.id


def _neutral(text: NetplanText, device: tuple[str, str]) -> None:
    for key, value in netplan_keys.NEUTRAL.items():
        text.set(("network", *device, key), value)


def _new_port(
    work: Work, takeover: Takeover, port: BridgePort, home: str, shared: Device | None
) -> str:
    """A definition of its own for a NIC: the one that it has is for others too, or it has none.

    Of several definitions for one NIC the renderer takes the one whose id comes first.
    """
    facts = work.view.networkd.link(port.name)
    if port.kind in ("bond", "vlan") or (facts is not None and facts.virtual and not shared):
        raise Refused(f"netplan does not define {port.name}", hint="netplan get")
    if shared is not None and shared.renderer == "NetworkManager":
        raise Refused(
            f"netplan's definition {shared.id} is for {port.name} and other NICs",
            why="NetworkManager would have two profiles for it",
            hint=f"give {port.name} a definition of its own",
        )
    id = port.name
    if shared is not None and not id < shared.id:
        id = f"0-{port.name}"
    if shared is not None and (not id < shared.id or _would_take(work, shared, takeover.bridge)):
        raise Refused(
            f"netplan's definition {shared.id} would come before one of {takeover.bridge}",
            why="its match is too wide",
            hint=f"give {port.name} a definition of its own",
        )
    value: dict[str, Any] = _match(facts, port.name)
    work.texts[home].set(("network", "ethernets", id), value)
    _neutral(work.texts[home], ("ethernets", id))
    return id


def _would_take(work: Work, shared: Device, bridge: str) -> bool:
    names = [(work.body(x, shared).get("match") or {}).get("name") for x in shared.paths]
    return any(fnmatchcase(bridge, str(x)) for x in names if x) and shared.id < bridge


def _match(facts: NetworkdLink | None, name: str) -> dict[str, Any]:
    mac = facts.permanent_mac if facts else None
    return {"match": {"macaddress": str(mac)} if mac else {"name": name}}


def set_ports(view: NetplanView, before: Takeover, after: Takeover) -> HandedOver:
    """Ports come and go; the bridge's own configuration stays. Raises `Refused`, `NotFound`."""
    work = Work(view)
    bridge = _bridge(work, after.bridge)
    known = {x.name for x in before.ports}
    added = [x for x in after.ports if x.name not in known]
    path = bridge.paths[-1]
    new = {x.name: _port(work, after, x, path) for x in added}
    old = {x.name: d.id for x in before.ports if (d := work.device(x.name))}
    ids = {**old, **new}
    missing = [x.name for x in (*before.ports, *after.ports) if x.name not in ids]
    if missing:
        raise Refused(f"netplan does not define {missing[0]}", hint="netplan get")
    holders = [x for x in bridge.paths if "interfaces" in work.body(x, bridge)]
    if len(holders) > 1:
        raise Refused(f"{after.bridge} gets its ports from several files", why=", ".join(holders))
    work.texts[(holders or [path])[0]].set(
        ("network", "bridges", after.bridge, "interfaces"), [ids[x.name] for x in after.ports]
    )
    _check_renderers(work, after, bridge.renderer)
    if bridge.renderer == NM:
        return netplan_networkmanager.set_ports(work.view, (before, after), work.changed(), ids)
    return netplan_told.set_ports(work.view, (before, after), work.changed(), ids)


def _bridge(work: Work, name: str) -> Device:
    if not any(x.kind == "bridges" and x.id == name for x in _all(work)):
        raise NotFound(f"netplan makes no bridge {name}", hint="netplan get bridges")
    return work.defined("bridges", name)


def delete(view: NetplanView, takeover: Takeover) -> HandedOver:
    """The bridge goes and its addressing returns to its first port's definition.

    Raises `Refused`, `NotFound`.
    """
    work = Work(view)
    bridge = _bridge(work, takeover.bridge)
    heir = work.device(takeover.heir_of) if takeover.heir_of else None
    if takeover.heir_of is not None and heir is None:
        raise Refused(f"netplan does not define {takeover.heir_of}", hint="netplan get")
    at = ("network", "bridges", takeover.bridge)
    pieces = []
    passed = {y for x in bridge.paths for y in _passed(work.body(x, bridge))}
    for path in bridge.paths:
        keys = [x for x in work.body(path, bridge) if x not in netplan_keys.BRIDGE_ONLY]
        netplan_keys.moving(dict.fromkeys(keys), takeover.bridge)
        pieces += [(path, work.texts[path].cut((*at, x))) for x in keys]
        work.texts[path].cut(at)
        if not work.texts[path].get(*at[:2]):
            work.texts[path].cut(at[:2])
    if heir is not None:
        _un_neutral(work, heir)
        for path, piece in pieces:
            work.texts[path].put(("network", heir.kind, heir.id, _key(piece)), piece)
    ids = {x.name: d.id for x in takeover.ports if (d := work.device(x.name))}
    if bridge.renderer != NM:
        return netplan_told.delete(work.view, takeover, work.changed(), ids)
    return netplan_networkmanager.delete(work.view, takeover, work.changed(), ids, passed)


def _passed(body: dict[str, Any]) -> tuple[str, ...]:
    """What goes to NetworkManager as it is (netplan-yaml, networkmanager)."""
    through = (body.get("networkmanager") or {}).get("passthrough") or {}
    return tuple(str(x) for x in through)


def _un_neutral(work: Work, heir: Device) -> None:
    for path in heir.paths:
        body = work.body(path, heir)
        for key in netplan_keys.moving(body, heir.id):
            work.texts[path].cut(("network", heir.kind, heir.id, key))
