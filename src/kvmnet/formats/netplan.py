"""Netplan's YAML (https://netplan.readthedocs.io/en/stable/netplan-yaml/)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.host import Link

KINDS = ("ethernets", "wifis", "modems", "bonds", "bridges", "vlans", "tunnels", "vrfs",
         "dummy-devices", "virtual-ethernets", "nm-devices")  # fmt: skip
PHYSICAL = frozenset({"ethernets", "wifis", "modems", "nm-devices"})


class NetplanDevice(Struct, frozen=True, kw_only=True):
    """One device definition of one file."""

    path: str
    kind: str
    id: str
    renderer: str | None = None
    match_name: str | None = None
    match_mac: str | None = None
    match_driver: tuple[str, ...] = ()
    set_name: str | None = None
    interfaces: tuple[str, ...] = ()
    """Ids of the ports of a bridge or bond."""

    def matches(self, link: Link) -> bool:
        """Whether the definition is about that link: by `match`, else by its id as the name."""
        if link.name == self.set_name:
            return True
        conditions = []
        if self.match_name is not None:
            conditions.append(fnmatchcase(link.name, self.match_name))
        if self.match_mac is not None:
            conditions.append((link.mac or "") == self.match_mac.lower())
        if self.match_driver:
            conditions.append(any(fnmatchcase(link.driver or "", x) for x in self.match_driver))
        return all(conditions) if conditions else link.name == self.id


class NetplanFile(Struct, frozen=True, kw_only=True):
    """One YAML file."""

    path: str
    renderer: str | None
    devices: tuple[NetplanDevice, ...]


@functools.lru_cache(maxsize=16)  # looking and planning ask for the same files
def parse(text: str, path: str) -> NetplanFile:
    """One netplan file. Raises `InvalidInput` where it is no YAML or has another shape."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise InvalidInput(f"{path} is not YAML", why=why) from None
    network = _mapping(_mapping(document, path).get("network"), path)
    renderer = network.get("renderer")
    devices = [
        _device(path, kind, str(name), _mapping(body, path), renderer)
        for kind in KINDS
        for name, body in _mapping(network.get(kind), path).items()
        if not (kind in PHYSICAL and name == "renderer")
    ]
    return NetplanFile(path=path, renderer=renderer, devices=tuple(devices))


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{path} is not netplan's YAML", why=f"a mapping, not {value!r:.40}")
    return value


def _device(
    path: str, kind: str, name: str, body: Mapping[str, Any], renderer: Any
) -> NetplanDevice:
    match = _mapping(body.get("match"), path)
    driver = match.get("driver") or ()
    interfaces = body.get("interfaces") or ()
    own = body.get("renderer", renderer)
    return NetplanDevice(
        path=path,
        kind=kind,
        id=name,
        renderer=str(own) if own else None,
        match_name=_text(match.get("name")),
        match_mac=_text(match.get("macaddress")),
        match_driver=(driver,) if isinstance(driver, str) else tuple(map(str, driver)),
        set_name=_text(body.get("set-name")),
        interfaces=tuple(map(str, interfaces)) if isinstance(interfaces, list) else (),
    )


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None
