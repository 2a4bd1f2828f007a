"""What NetworkManager is told when a bridge comes, goes or changes its ports, and in which order.

On the way there it adopts the bridge that is in the kernel already. On the way back it goes first:
a bridge whose profile is in force would be made again as soon as the kernel's is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmnet.formats import networkmanager_sections as sections
from kvmnet.model.handover import (
    FileState,
    HandedOver,
    ManagerCall,
    NmDown,
    NmLoad,
    NmPort,
    NmReapply,
    NmUp,
)
from kvmnet.model.networkmanager import NmProfile
from kvmnet.model.takeover import Takeover

if TYPE_CHECKING:
    from kvmnet.formats.networkmanager_bridge import Work


def take(
    work: Work, takeover: Takeover, bridge: NmProfile, ports: tuple[NmPort, ...]
) -> HandedOver:
    """A new bridge, whose files are written."""
    files, before = work.changed()
    active = {x.nic: work.view.device(x.nic).settled for x in ports}
    heir = takeover.heir_of
    back = [
        _return(work, x.nic, active[x.nic], (takeover.bridge, bridge.uuid))
        for x in ports
        if active[x.nic] and x.nic == heir
    ]
    rest = [
        _return(work, x.nic, active[x.nic], None) for x in ports if active[x.nic] and x.nic != heir
    ]
    return HandedOver(
        files=files,
        files_before=before,
        calls=(_load(files), _adopt(bridge, takeover.bridge, ports)),
        calls_back_first=(*back, NmDown(uuid=bridge.uuid), *rest),
        calls_back=(
            _load(files),
            *(_return(work, x.nic, active[x.nic], None) for x in ports if active[x.nic]),
        ),
        notes=_notes(before),
    )


def _notes(files: tuple[FileState, ...]) -> tuple[str, ...]:
    """cloud-init writes its profiles again for a new instance (cloudinit.readthedocs.io)."""
    written = [x.path for x in files if "cloud-init" in (x.text or "")[:400]]
    return tuple(
        f"cloud-init made {x} and writes it again for a new instance; the bridge's profiles have a "
        "higher autoconnect-priority, so they still come first" for x in written
    )  # fmt: skip


def _load(files: tuple[FileState, ...]) -> NmLoad:
    return NmLoad(paths=tuple(x.path for x in files))


def _adopt(bridge: NmProfile, name: str, ports: tuple[NmPort, ...]) -> NmUp:
    return NmUp(uuid=bridge.uuid, path=bridge.file.path, link=name, ports=ports, keeps_from=name)


def _return(work: Work, nic: str, uuid: str | None, bridge: tuple[str, str] | None) -> NmUp:
    """The NIC's old profile; with a bridge (name and UUID), instead of that."""
    profile = work.view.profile(uuid)
    return NmUp(
        uuid=uuid or "",
        path=profile.file.path if profile else "",
        link=nic,
        keeps_from=bridge[0] if bridge else None,
        instead_of=bridge[1] if bridge else None,
    )


def give(
    work: Work,
    takeover: Takeover,
    bridge: NmProfile,
    ports: tuple[NmPort, ...],
    given: dict[str, str | None],
) -> HandedOver:
    """A bridge that goes: first the old profile is in force on its NIC again, then it goes."""
    files, before = work.changed()
    early: list[ManagerCall] = []
    late: list[ManagerCall] = []
    for port in ports:
        uuid = given[port.nic]
        instead = (takeover.bridge, bridge.uuid) if port.nic == takeover.heir_of else None
        if uuid is None or uuid == port.uuid:
            early.append(NmDown(uuid=port.uuid))
        else:
            early.append(_return(work, port.nic, uuid, instead))
        if uuid is not None:
            late.append(_return(work, port.nic, uuid, None))
        if _is_rewritten(work, uuid, files):
            late.append(NmReapply(link=port.nic))
    return HandedOver(
        files=files,
        files_before=before,
        calls_first=(*early, NmDown(uuid=bridge.uuid)),
        calls=(_load(files), *late),
        calls_back=(_load(files), _adopt(bridge, takeover.bridge, ports)),
    )


def _is_rewritten(work: Work, uuid: str | None, files: tuple[FileState, ...]) -> bool:
    """Whether a profile gets other addresses than it has in its file so far."""
    profile = work.view.profile(uuid)
    new = next((x for x in files if profile is not None and x.path == profile.file.path), None)
    if profile is None or new is None:
        return False
    now = NmProfile(file=new, uuid=profile.uuid)
    return not sections.says_the_same(now, profile)


def change(
    work: Work,
    bridge: NmProfile,
    added: tuple[NmPort, ...],
    gone: tuple[NmPort, ...],
    given: dict[str, str | None],
) -> HandedOver:
    """Ports that come and go."""
    files, before = work.changed()
    new = {x.path: x for x in files}
    by_uuid = {x.uuid: x.file.path for x in work.view.profiles}
    paths = {x.uuid: _port_path(x, by_uuid, new) for x in (*added, *gone)}
    active = {x.nic: work.view.device(x.nic).settled for x in added}
    joined = tuple(NmUp(uuid=x.uuid, path=paths[x.uuid], link=x.nic) for x in added)
    left: list[ManagerCall] = [NmDown(uuid=x.uuid) for x in gone]
    returned = [_return(work, nic, uuid, None) for nic, uuid in given.items() if uuid is not None]
    again = tuple(NmUp(uuid=x.uuid, path=paths[x.uuid], link=x.nic) for x in gone)
    back_first = [
        _return(work, x.nic, active[x.nic], None) if active[x.nic] else NmDown(uuid=x.uuid)
        for x in added
    ]
    return HandedOver(
        files=files,
        files_before=before,
        calls_first=tuple(left),
        calls=(_load(files), *joined, *returned),
        calls_back_first=tuple(back_first),
        calls_back=(_load(files), *again),
    )


def _port_path(port: NmPort, known: dict[str, str], new: dict[str, FileState]) -> str:
    named = [p for p, x in new.items() if x.text and f"uuid={port.uuid}" in x.text]
    return known.get(port.uuid, named[0] if named else "")
