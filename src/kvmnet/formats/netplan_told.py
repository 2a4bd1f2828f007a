"""What goes with netplan's files: its renderer's drop-ins, cloud-init, and what both are told."""

from __future__ import annotations

from pathlib import PurePosixPath

from kvmnet.errors import Refused
from kvmnet.formats import networkd_bridge, networkd_calls
from kvmnet.model.handover import FileState, HandedOver, LinkUnit, NetplanGenerate
from kvmnet.model.netplan import NetplanView
from kvmnet.model.takeover import Takeover

Changed = tuple[tuple[FileState, ...], tuple[FileState, ...]]
_DROP_IN = "50-kvmnet.conf"
_CLOUD = "/etc/cloud/cloud.cfg.d/99-kvmnet-disable-network-config.cfg"
_CLOUD_TEXT = """\
# kvmnet changed a file of netplan that cloud-init writes; so it must not write it again.
network: {config: disabled}
"""


def unit(id: str) -> str:
    """The file that netplan writes for a device."""
    return f"/run/systemd/network/10-netplan-{id}.network"


def create(
    view: NetplanView, takeover: Takeover, changed: Changed, ids: tuple[str, ...], renderer: str
) -> HandedOver:
    """The hand-over of a new bridge whose YAML is written."""
    files, before = changed
    extra, notes = _cloud_init(view, files)
    _check(renderer)
    extra += _drop_ins(view, takeover)
    prefix = networkd_bridge.choose_prefix(view.networkd)
    names = tuple(x.name for x in takeover.ports)
    own = unit(takeover.bridge)
    heir = view.networkd.link(takeover.heir_of) if takeover.heir_of else None
    leased = networkd_bridge.is_leased(heir, takeover)
    links = (
        LinkUnit(link=takeover.bridge, unit=own, leased=leased),
        *(LinkUnit(link=n, unit=unit(i)) for n, i in zip(names, ids, strict=True)),
    )
    notes.append(networkd_bridge.NOTE_KEPT.format(bridge=takeover.bridge))
    return HandedOver(
        files=(*files, *extra),
        files_before=(*before, *_before(view, extra)),
        calls=(NetplanGenerate(), networkd_calls.adopt((own,), links, (takeover.bridge,))),
        calls_back_first=(networkd_calls.release(prefix, names),),
        calls_back=(
            NetplanGenerate(),
            networkd_calls.take_back(view.networkd, prefix, names, own),
        ),
        calls_back_at_boot=(NetplanGenerate(),),
        notes=tuple(notes),
    )


def _check(renderer: str) -> None:
    """Refuse NetworkManager below netplan.

    Netplan gives a NIC one profile, under one name, as a port and as what it was; NetworkManager
    has that profile in force and does not take the changed one up without letting the NIC go.
    """
    if renderer == "NetworkManager":
        raise Refused(
            "netplan has NetworkManager manage the NIC (renderer: NetworkManager)",
            why="it would let the NIC go when netplan changes the NIC's profile",
            hint="use --no-persist, or give the NIC a profile in NetworkManager instead of netplan",
        )


def _drop_ins(view: NetplanView, takeover: Takeover) -> list[FileState]:
    """What netplan's YAML can't say, for the files that it writes (systemd.network(5))."""
    found = []
    base = f"/etc/systemd/network/10-netplan-{takeover.bridge}"
    heir = view.networkd.link(takeover.heir_of) if takeover.heir_of else None
    if heir is not None and takeover.address in ("keep", "dhcp"):
        text = networkd_bridge.identity(
            heir, networkd_bridge.sections_in_force(view.networkd, heir)
        )
        if text:
            path = f"{base}.network.d/{_DROP_IN}"
            found.append(FileState(path=path, text=text.lstrip("\n")))
    if takeover.vlan_filtering:
        text = "[Bridge]\nVLANFiltering=yes\n"
        found.append(FileState(path=f"{base}.netdev.d/{_DROP_IN}", text=text))
    return found


def _cloud_init(
    view: NetplanView, files: tuple[FileState, ...]
) -> tuple[list[FileState], list[str]]:
    """cloud-init writes its file at a boot with a new instance id, unless it is told not to
    (https://cloudinit.readthedocs.io/en/latest/reference/network-config.html)."""
    written = [x.path for x in files if _is_cloud_inits(x)]
    if not written or view.cloud_init == "absent":
        return [], []
    if view.cloud_init == "keeps-off":
        return [], [f"cloud-init once wrote {written[0]}, and is told not to any more"]
    note = f"cloud-init writes {written[0]}: {_CLOUD} keeps it from undoing the change"
    return [FileState(path=_CLOUD, text=_CLOUD_TEXT)], [note]


def _is_cloud_inits(file: FileState) -> bool:
    head = (file.text or "")[:400].lower()
    name = PurePosixPath(file.path).name
    return name == "50-cloud-init.yaml" or ("cloud-init" in head and head.startswith("#"))


def _before(view: NetplanView, made: list[FileState]) -> tuple[FileState, ...]:
    known = {x.path: x for x in view.networkd.files}
    return tuple(known.get(x.path, FileState(path=x.path, text=None)) for x in made)


def set_ports(
    view: NetplanView,
    takeovers: tuple[Takeover, Takeover],
    changed: Changed,
    ids: dict[str, str],
    renderer: str,
) -> HandedOver:
    """The hand-over of a bridge with other ports whose YAML is written."""
    files, before = changed
    _check(renderer)
    old = tuple(x.name for x in takeovers[0].ports)
    new = tuple(x.name for x in takeovers[1].ports)
    gone = tuple(x for x in old if x not in new)
    added = tuple(x for x in new if x not in old)
    prefix = networkd_bridge.choose_prefix(view.networkd)
    bridges = (takeovers[1].bridge,)
    joined = tuple(LinkUnit(link=x, unit=unit(ids[x])) for x in added)
    there = tuple(LinkUnit(link=x, unit=unit(ids[x])) for x in gone)
    return HandedOver(
        files=files,
        files_before=before,
        calls_first=(networkd_calls.release(prefix, gone),) if gone else (),
        calls=(NetplanGenerate(), networkd_calls.settle(prefix, gone, joined, bridges)),
        calls_back_first=(networkd_calls.release(prefix, added),) if added else (),
        calls_back=(NetplanGenerate(), networkd_calls.settle(prefix, added, there, bridges)),
        calls_back_at_boot=(NetplanGenerate(),),
    )


def delete(
    view: NetplanView,
    takeover: Takeover,
    changed: Changed,
    ids: dict[str, str],
    renderer: str,
) -> HandedOver:
    """The hand-over of a bridge that goes, whose YAML is written."""
    files, before = changed
    _check(renderer)
    base = f"/etc/systemd/network/10-netplan-{takeover.bridge}"
    ours = {f"{base}.network.d/{_DROP_IN}", f"{base}.netdev.d/{_DROP_IN}"}
    extra = [x for x in view.networkd.files if x.path in ours]
    prefix = networkd_bridge.choose_prefix(view.networkd)
    names = tuple(x.name for x in takeover.ports)
    own = unit(takeover.bridge)
    heir = takeover.heir_of
    back = (LinkUnit(link=heir, unit=unit(ids[heir])),) if heir else ()
    again = networkd_calls.adopt(
        (own,),
        (
            LinkUnit(link=takeover.bridge, unit=own),
            *(LinkUnit(link=x, unit=unit(ids[x])) for x in names if x in ids),
        ),
        (takeover.bridge,),
    )
    given = networkd_calls.give_back(view.networkd, prefix, names, back)
    return HandedOver(
        files=(*files, *(FileState(path=x.path, text=None) for x in extra)),
        files_before=(*before, *extra),
        calls_first=(networkd_calls.release(prefix, names),),
        calls=(NetplanGenerate(), networkd_calls.without(given, own)),
        calls_back=(NetplanGenerate(), networkd_calls.settled(prefix, names, again)),
        calls_back_at_boot=(NetplanGenerate(),),
    )
