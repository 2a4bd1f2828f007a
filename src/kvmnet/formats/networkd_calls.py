"""What networkd is told so that it takes links over, or lets them go, without a gap.

Measured and seen with systemd 252:

- A link whose file changes is configured anew, and what networkd did not put there itself (the
  addresses that were moved live, before it was told) is dropped. `KeepConfiguration=yes` prevents
  that, but it also keeps addresses of leases that ran out. So it is said by a drop-in below /run,
  which is gone after the next boot.
- When a port leaves its bridge, the kernel sends RTM_DELLINK (of the bridge family) for it.
  networkd takes it for the NIC's end, then finds the NIC again, and configures it by the file that
  it knows: it enslaves it again, or gives it up for good ("failed", out of which only a restart
  leads). So it has to let go of a port before it is taken out: by a file that says Unmanaged=yes.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from kvmnet.formats import networkd_units as units
from kvmnet.model.handover import FileState, LinkUnit, NetworkdReload
from kvmnet.model.networkd import NetworkdView

RUNTIME = "/run/systemd/network"
_KEEP = "[Network]\nKeepConfiguration=yes\n"


def keep(unit: str) -> FileState:
    """A drop-in, until the next boot, with which a unit adopts what is there."""
    name = PurePosixPath(unit).name
    return FileState(path=f"{RUNTIME}/{name}.d/90-kvmnet-keep.conf", text=_KEEP)


def adopt(
    keep_for: tuple[str, ...], links: tuple[LinkUnit, ...], bridges: tuple[str, ...]
) -> NetworkdReload:
    """New files are read; the links whose units are named first keep what they have."""
    return NetworkdReload(volatile=tuple(keep(x) for x in keep_for), bridges=bridges, links=links)


def release(prefix: str, nics: tuple[str, ...]) -> NetworkdReload:
    """networkd lets go of NICs that have no addresses (they are ports)."""
    return NetworkdReload(
        volatile=tuple(
            FileState(path=_released(prefix, x), text=f"[Match]\nName={x}\n[Link]\nUnmanaged=yes\n")
            for x in nics
        ),
        links=tuple(LinkUnit(link=x, unit=None) for x in nics),
    )


def settle(
    prefix: str,
    released: tuple[str, ...],
    links: tuple[LinkUnit, ...],
    bridges: tuple[str, ...],
) -> NetworkdReload:
    """New files are read; NICs that were released are networkd's again."""
    gone = tuple(FileState(path=_released(prefix, x), text=None) for x in released)
    return NetworkdReload(volatile=gone, bridges=bridges, links=links)


def settled(prefix: str, released: tuple[str, ...], call: NetworkdReload) -> NetworkdReload:
    """The call, with NICs that were released being networkd's again."""
    gone = tuple(FileState(path=_released(prefix, x), text=None) for x in released)
    return NetworkdReload(volatile=(*gone, *call.volatile), bridges=call.bridges, links=call.links)


def take_back(
    view: NetworkdView, prefix: str, nics: tuple[str, ...], bridge_unit: str
) -> NetworkdReload:
    """NICs that were released are networkd's again, by the files that are in force for them now."""
    known = [x for x in view.links if x.name in nics and x.unit and x.state != "unmanaged"]
    links = tuple(LinkUnit(link=x.name, unit=x.unit) for x in known)
    return without(give_back(view, prefix, nics, links), bridge_unit)


def without(call: NetworkdReload, bridge_unit: str) -> NetworkdReload:
    """The call, with the drop-in gone by which the bridge kept what it had."""
    gone = FileState(path=keep(bridge_unit).path, text=None)
    return NetworkdReload(volatile=(gone, *call.volatile), bridges=call.bridges, links=call.links)


def give_back(
    view: NetworkdView, prefix: str, nics: tuple[str, ...], links: tuple[LinkUnit, ...]
) -> NetworkdReload:
    """NICs that were released are networkd's again, by these units, and keep what they have."""
    files = [FileState(path=_released(prefix, x), text=None) for x in nics]
    wanted = []
    for link in links:
        if any(x.unit == link.unit and x.name not in nics for x in view.links):
            file = _stand_in(view, prefix, link)
            files.append(file)
            wanted.append(LinkUnit(link=link.link, unit=file.path))
        else:
            files.append(keep(link.unit or ""))
            wanted.append(link)
    return NetworkdReload(volatile=tuple(files), links=tuple(wanted))


def _stand_in(view: NetworkdView, prefix: str, link: LinkUnit) -> FileState:
    """The unit for this link alone, until the next boot: a drop-in would disturb all it serves."""
    name = PurePosixPath(link.unit or "").name
    old = units.effective(view.files, ".network")[name]
    body = [x for x in units.merged(view.files, old) if x.name != "Match"]
    text = "".join(x.text for x in body)
    return FileState(
        path=f"{RUNTIME}/{prefix}-{link.link}.network",
        text=f"# {old.path}, for {link.link} alone, until the next boot.\n"
        f"[Match]\nName={link.link}\n\n{text}\n{_KEEP}",
    )


def _released(prefix: str, nic: str) -> str:
    """A name that is read before the file of the NIC as a port: a dash comes before letters."""
    return f"{RUNTIME}/{prefix}--{nic}.network"
