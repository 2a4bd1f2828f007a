"""What netplan and NetworkManager are told, where netplan has NetworkManager manage the NIC.

Netplan gives each device one profile below /run, under one name: a NIC's own profile becomes that
of a port, and NetworkManager, which has it in force as it was, has to put it in force once more.
So the way back begins with the old profile's text, before netplan's file is the old one again.
"""

from __future__ import annotations

import uuid

from kvmnet.errors import Refused
from kvmnet.formats import netplan_cloud
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.formats import networkmanager_sections as sections
from kvmnet.model.handover import (
    FileState,
    HandedOver,
    ManagerCall,
    NetplanGenerate,
    NmDown,
    NmLoad,
    NmPort,
    NmUp,
)
from kvmnet.model.netplan import NetplanView
from kvmnet.model.networkmanager import NmProfile
from kvmnet.model.takeover import Takeover

Changed = tuple[tuple[FileState, ...], tuple[FileState, ...]]
FOLDER = "/run/NetworkManager/system-connections"
_NAMESPACE = uuid.UUID("b425e9fb-7598-44b4-9e3b-5a2e3aaa4905")
_NAMED_AFTER = "/etc/NetworkManager/system-connections"


def path_of(id: str) -> str:
    """The profile that netplan writes for a device."""
    return f"{FOLDER}/netplan-{id}.nmconnection"


def uuid_of(id: str) -> str:
    """The UUID that NetworkManager gives to it, since netplan writes none.

    Version 3, of the file's name as if it lay in /etc (found by trial with NetworkManager 1.42).
    """
    return str(uuid.uuid3(_NAMESPACE, f"keyfile\0{_NAMED_AFTER}/netplan-{id}.nmconnection\0"))


def passthrough(view: NetplanView, takeover: Takeover) -> dict[str, str]:
    """What netplan's own keys can't say of the bridge: keys of nm-settings-keyfile(5).

    Without an address netplan would have IPv4 be link-local.
    """
    values: dict[str, str] = {"bridge.vlan-filtering": "true"} if takeover.vlan_filtering else {}
    if takeover.heir_of is None or takeover.address == "none":
        return values | {"ipv4.method": "disabled", "ipv6.method": "disabled"}
    facts = view.nm.device(takeover.heir_of)
    old = view.nm.profile(facts.active)
    if takeover.address == "keep" and old is not None:
        return values | sections.identity(old.text, takeover, facts)
    if takeover.address == "dhcp":
        leased = "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=ignore\n"
        return values | sections.identity(leased, takeover, facts)
    return values


def create(
    view: NetplanView, takeover: Takeover, changed: Changed, ids: tuple[str, ...]
) -> HandedOver:
    """The hand-over of a new bridge whose YAML is written. Raises `Refused`."""
    names = {x.name: i for x, i in zip(takeover.ports, ids, strict=True)}
    if takeover.heir_of is not None:
        _check_heir(view, takeover.heir_of, names[takeover.heir_of])
    changed, notes = netplan_cloud.kept_off(view, changed)
    paths = tuple(path_of(x) for x in (takeover.bridge, *ids))
    active = [x for x in names if view.nm.device(x).settled is not None]
    heir = [x for x in active if x == takeover.heir_of]
    rest = [x for x in active if x != takeover.heir_of]
    return HandedOver(
        files=changed[0],
        files_before=changed[1],
        calls=(NetplanGenerate(), NmLoad(paths=paths), _adopt(takeover, names)),
        calls_back_first=(
            *_load_old(view, active, names),
            *(_return(view, x, names, takeover.bridge) for x in heir),
            NmDown(uuid=uuid_of(takeover.bridge)),
            *(_return(view, x, names, None) for x in rest),
        ),
        calls_back=(
            NetplanGenerate(),
            NmLoad(paths=paths),
            *(_return(view, x, names, None) for x in active),
        ),
        calls_back_at_boot=(NetplanGenerate(),),
        notes=notes,
    )


def _check_heir(view: NetplanView, nic: str, id: str) -> None:
    """What is in force has to be what netplan says: the bridge inherits that."""
    facts = view.nm.device(nic)
    if facts.state == "unmanaged":
        raise Refused(
            f"NetworkManager does not manage {nic}",
            why="so it would not make it a port when the host starts",
            hint=f"nmcli device set {nic} managed yes",
        )
    profile = view.nm.profile(facts.active)
    if facts.active is not None and (profile is None or profile.file.path != path_of(id)):
        raise Refused(
            f"{nic} does not have the addresses that netplan gives it",
            why=f"NetworkManager uses another profile ({facts.active})",
            hint=f"nmcli connection up netplan-{id}",
        )


def _adopt(takeover: Takeover, ids: dict[str, str]) -> NmUp:
    return NmUp(
        uuid=uuid_of(takeover.bridge),
        path=path_of(takeover.bridge),
        link=takeover.bridge,
        ports=tuple(NmPort(uuid=uuid_of(i), nic=n) for n, i in ids.items()),
        keeps_from=takeover.bridge,
    )


def _load_old(view: NetplanView, nics: list[str], ids: dict[str, str]) -> tuple[NmLoad, ...]:
    """Have NetworkManager read what netplan said of these NICs before."""
    found = [view.nm.profile(view.nm.device(x).active) for x in nics]
    own = {path_of(ids[x]) for x in nics}
    old = tuple(x.file for x in found if x is not None and x.file.path in own)
    return (NmLoad(paths=tuple(x.path for x in old), volatile=old),) if old else ()


def _return(view: NetplanView, nic: str, ids: dict[str, str], bridge: str | None) -> NmUp:
    """What was in force on a NIC before; with a bridge, instead of that."""
    active = view.nm.device(nic).active or uuid_of(ids[nic])
    profile = view.nm.profile(active)
    return NmUp(
        uuid=active,
        path=profile.file.path if profile else path_of(ids[nic]),
        link=nic,
        role="no port",
        keeps_from=bridge,
        instead_of=uuid_of(bridge) if bridge else None,
    )


def set_ports(
    view: NetplanView,
    takeovers: tuple[Takeover, Takeover],
    changed: Changed,
    ids: dict[str, str],
) -> HandedOver:
    """The hand-over of a bridge with other ports whose YAML is written."""
    old, new = (tuple(x.name for x in takeover.ports) for takeover in takeovers)
    gone = [x for x in old if x not in new]
    added = [x for x in new if x not in old]
    paths = tuple(path_of(ids[x]) for x in (*gone, *added))
    active = [x for x in added if view.nm.device(x).settled is not None]
    return HandedOver(
        files=changed[0],
        files_before=changed[1],
        calls_first=tuple(NmDown(uuid=uuid_of(ids[x])) for x in gone),
        calls=(NetplanGenerate(), NmLoad(paths=paths), *(_join(x, ids) for x in added)),
        calls_back_first=(
            *_load_old(view, active, ids),
            *(
                _return(view, x, ids, None) if x in active else NmDown(uuid=uuid_of(ids[x]))
                for x in added
            ),
        ),
        calls_back=(NetplanGenerate(), NmLoad(paths=paths), *(_join(x, ids) for x in gone)),
        calls_back_at_boot=(NetplanGenerate(),),
    )


def _join(nic: str, ids: dict[str, str]) -> NmUp:
    return NmUp(uuid=uuid_of(ids[nic]), path=path_of(ids[nic]), link=nic, role="port")


def delete(
    view: NetplanView, takeover: Takeover, changed: Changed, ids: dict[str, str], added: set[str]
) -> HandedOver:
    """The hand-over of a bridge that goes, whose YAML is written.

    `added` are the keys that the bridge's profile had by netplan's passthrough.
    """
    heir = takeover.heir_of
    paths = tuple(path_of(x) for x in (takeover.bridge, *ids.values()))
    early: list[ManagerCall] = []
    text = _own_again(view, takeover.bridge, ids[heir], added) if heir else None
    back = _return(view, heir, ids, None) if heir else None
    if heir and text is not None:
        file = FileState(path=path_of(ids[heir]), text=text, mode=0o600)
        early = [
            NmLoad(paths=(file.path,), volatile=(file,)),
            _return(view, heir, ids, takeover.bridge),
        ]
    early += [NmDown(uuid=uuid_of(i)) for x, i in ids.items() if x != heir]
    return HandedOver(
        files=changed[0],
        files_before=changed[1],
        calls_first=(*early, NmDown(uuid=uuid_of(takeover.bridge))),
        calls=(NetplanGenerate(), NmLoad(paths=paths), *((back,) if back else ())),
        calls_back=(NetplanGenerate(), NmLoad(paths=paths), _adopt(takeover, ids)),
        calls_back_at_boot=(NetplanGenerate(),),
    )


def _own_again(view: NetplanView, bridge: str, id: str, added: set[str]) -> str | None:
    """The NIC's profile as netplan is going to write it; None: netplan has written none yet."""
    own, port = _at(view, path_of(bridge)), _at(view, path_of(id))
    if own is None or port is None:
        return None
    text = sections.with_addressing(sections.no_port(port.text), own)
    for name in sorted(added):
        group, _, key = name.rpartition(".")
        text = edit.without(text, group, key)
    return text


def _at(view: NetplanView, path: str) -> NmProfile | None:
    return next((x for x in view.nm.profiles if x.file.path == path), None)
