"""What goes with netplan's files for networkd: its drop-ins, and what both are told."""

from __future__ import annotations

from kvmnet.formats import netplan_cloud, networkd_bridge, networkd_calls
from kvmnet.model.handover import FileState, HandedOver, LinkUnit, NetplanGenerate
from kvmnet.model.netplan import NetplanView
from kvmnet.model.takeover import Takeover

Changed = tuple[tuple[FileState, ...], tuple[FileState, ...]]
_DROP_IN = "50-kvmnet.conf"


def unit(id: str) -> str:
    """The file that netplan writes for a device."""
    return f"/run/systemd/network/10-netplan-{id}.network"


def create(
    view: NetplanView, takeover: Takeover, changed: Changed, ids: tuple[str, ...]
) -> HandedOver:
    """The hand-over of a new bridge whose YAML is written."""
    (files, before), notes = netplan_cloud.kept_off(view, changed)
    extra = _drop_ins(view, takeover)
    prefix = networkd_bridge.choose_prefix(view.networkd)
    names = tuple(x.name for x in takeover.ports)
    own = unit(takeover.bridge)
    heir = view.networkd.link(takeover.heir_of) if takeover.heir_of else None
    leased = networkd_bridge.is_leased(heir, takeover)
    links = (
        LinkUnit(link=takeover.bridge, unit=own, leased=leased),
        *(LinkUnit(link=n, unit=unit(i)) for n, i in zip(names, ids, strict=True)),
    )
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
        notes=(*notes, networkd_bridge.NOTE_KEPT.format(bridge=takeover.bridge)),
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


def _before(view: NetplanView, made: list[FileState]) -> tuple[FileState, ...]:
    known = {x.path: x for x in view.networkd.files}
    return tuple(known.get(x.path, FileState(path=x.path, text=None)) for x in made)


def set_ports(
    view: NetplanView,
    takeovers: tuple[Takeover, Takeover],
    changed: Changed,
    ids: dict[str, str],
) -> HandedOver:
    """The hand-over of a bridge with other ports whose YAML is written."""
    files, before = changed
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
) -> HandedOver:
    """The hand-over of a bridge that goes, whose YAML is written."""
    files, before = changed
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
