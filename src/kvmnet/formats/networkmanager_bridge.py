"""A bridge that takes over a NIC's place, in NetworkManager's keyfiles (nm-settings-keyfile(5)).

The bridge and each port get a profile of their own. A NIC's old profile stays, and is only kept
from starting by itself; so it is there to go back to. Bonds, VLANs and the like are different:
others name their profile by its UUID, so that profile itself becomes the port's.
"""

from __future__ import annotations

import uuid
from pathlib import PurePosixPath

from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.formats import networkmanager_sections as sections
from kvmnet.formats import networkmanager_told as told
from kvmnet.model.handover import FileState, HandedOver, NmPort
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.takeover import BridgePort, Takeover

FOLDER = "/etc/NetworkManager/system-connections"
_NAMESPACE = uuid.UUID("6f6b1a6e-5b0e-5d0a-9c39-3a1e2f6d9d11")
_MAX_PRIORITY = 999
INSTEAD_OF = "kvmnet.instead-of"
HELD_BACK = "kvmnet.held-back"
BECAME = "kvmnet.became-port"
"""What is noted in a port's profile, as user data (nm-settings(5), user)."""
_WIRED = frozenset({"ethernet", "802-3-ethernet"})


class Work:
    """Files while they are changed."""

    def __init__(self, view: NmView) -> None:
        self.view = view
        self.files: dict[str, FileState] = {}

    def put(self, file: FileState, text: str | None) -> None:
        self.files[file.path] = FileState(
            path=file.path, text=text, mode=file.mode, uid=file.uid, gid=file.gid
        )

    def now(self, profile: NmProfile) -> str:
        """A profile's text with what was changed so far."""
        changed = self.files.get(profile.file.path)
        return (changed.text if changed is not None else profile.text) or ""

    def changed(self) -> tuple[tuple[FileState, ...], tuple[FileState, ...]]:
        """The files that differ: as they are to be, and as they are."""
        known = {x.file.path: x.file for x in self.view.profiles}
        pairs = [(x, known.get(p, FileState(path=p, text=None))) for p, x in self.files.items()]
        differ = [x for x in pairs if x[0].text != x[1].text]
        return tuple(x for x, _ in differ), tuple(x for _, x in differ)


def create(view: NmView, takeover: Takeover) -> HandedOver:
    """The bridge becomes the heir of its first port. Raises `Refused` or `InvalidInput`."""
    _check(view, takeover)
    if find_bridge(view, takeover.bridge) is not None:
        raise Refused(
            f"NetworkManager has a profile of a bridge {takeover.bridge} already",
            hint="nmcli connection show",
        )
    work = Work(view)
    own = _uuid(takeover, takeover.bridge)
    heir = _heir(view, takeover)
    old = view.profile(heir.active) if heir else None
    text = sections.bridge_text(takeover, own, old, heir, _priority(view, takeover))
    path = f"{FOLDER}/{takeover.bridge}.nmconnection"
    _put_new(work, path, text)
    ports = tuple(add_port(work, takeover, x, own) for x in takeover.ports)
    return told.take(work, takeover, NmProfile(file=work.files[path], uuid=own), ports)


def _check(view: NmView, takeover: Takeover) -> None:
    for port in takeover.ports:
        facts = view.device(port.name)
        if facts.state == "unmanaged":
            raise Refused(
                f"NetworkManager does not manage {port.name}",
                why="so it would not make it a port when the host starts",
                hint=f"nmcli device set {port.name} managed yes",
            )
    facts = view.device(takeover.bridge)
    if facts.state == "unmanaged":
        raise Refused(
            f"NetworkManager is told to leave {takeover.bridge} alone",
            why="unmanaged-devices in its configuration",
            hint="NetworkManager --print-config",
        )


def _heir(view: NmView, takeover: Takeover) -> NmFacts | None:
    if takeover.heir_of is None or takeover.address == "none":
        return None
    facts = view.device(takeover.heir_of)
    profile = view.profile(facts.active)
    if profile is None:
        return None  # the NIC has nothing that could be inherited
    if PurePosixPath(profile.file.path).name.startswith("netplan-"):
        raise Refused(f"{takeover.heir_of} is netplan's", why=f"netplan wrote {profile.file.path}")
    if edit.get(profile.text, "connection", "master") or edit.get(
        profile.text, "connection", "controller"
    ):
        raise Refused(f"{takeover.heir_of} is a port already", why=f"{profile.file.path} says so")
    return facts


def find_bridge(view: NmView, name: str) -> NmProfile | None:
    """The profile of a bridge; the one that is in force if there are several."""
    found = [
        x for x in view.profiles
        if edit.get(x.text, "connection", "type") == "bridge"
        and edit.get(x.text, "connection", "interface-name") == name
    ]  # fmt: skip
    active = view.device(name).active
    return next((x for x in found if x.uuid == active), found[0] if found else None)


def _uuid(takeover: Takeover, what: str) -> str:
    """The same for the same bridge, and another one on another host (RFC 9562, version 5)."""
    return str(uuid.uuid5(_NAMESPACE, f"{takeover.mac} {takeover.bridge} {what}"))


def _put_new(work: Work, path: str, text: str) -> None:
    if any(x.file.path == path for x in work.view.profiles):
        raise Refused(f"{path} is there already", hint="nmcli connection show")
    work.put(FileState(path=path, text=None, mode=0o600), text)


def _rivals(view: NmView, port: BridgePort) -> list[NmProfile]:
    """Profiles that may start by themselves on a NIC."""
    facts = view.device(port.name)
    macs = {x.lower() for x in (facts.permanent_mac, facts.mac, port.mac) if x}
    found = []
    for profile in view.profiles:
        text = profile.text
        name = edit.get(text, "connection", "interface-name")
        mac = edit.get(text, "ethernet", "mac-address")
        if (
            edit.get(text, "connection", "type") in _WIRED
            and name in (None, "", port.name)
            and (not mac or mac.lower() in macs)
            and edit.get(text, "connection", "autoconnect") not in ("false", "no", "0")
        ):
            found.append(profile)
    return found


def _is_bound(profile: NmProfile) -> bool:
    """Whether it is for one NIC alone."""
    return bool(
        edit.get(profile.text, "connection", "interface-name")
        or edit.get(profile.text, "ethernet", "mac-address")
    )


def _priority(view: NmView, takeover: Takeover) -> int:
    """Above that of every other profile that could start on one of the ports."""
    rivals = [x for port in takeover.ports for x in _rivals(view, port)]
    said = [edit.get(x.text, "connection", "autoconnect-priority") or "0" for x in rivals]
    numbers = [int(x) for x in said if x.lstrip("-").isdecimal()]
    return min(max([0, *numbers]) + 1, _MAX_PRIORITY)


def add_port(work: Work, takeover: Takeover, port: BridgePort, bridge: str) -> NmPort:
    """Write what makes a NIC a port of the bridge with that UUID."""
    facts = work.view.device(port.name)
    old = work.view.profile(facts.active)
    kind = edit.get(old.text, "connection", "type") if old else None
    if old is not None and kind not in _WIRED:
        _check_own(old)
        work.put(old.file, sections.became_port(work.now(old), bridge))
        return NmPort(uuid=old.uuid, nic=port.name)
    own = _uuid(takeover, port.name)
    held = [x for x in _rivals(work.view, port) if _is_bound(x) and _is_own(x)]
    for profile in held:
        text = edit.put(work.now(profile), "connection", "autoconnect", "false")
        work.put(profile.file, text)
    text = sections.port_text(port, takeover.bridge, (bridge, own), old, facts)
    priority = str(_priority(work.view, takeover))
    text = edit.put(text, "connection", "autoconnect-priority", priority)
    if old is not None:
        text = edit.put(text, "user", INSTEAD_OF, old.uuid)
    if held:
        text = edit.put(text, "user", HELD_BACK, " ".join(x.uuid for x in held))
    _put_new(work, f"{FOLDER}/{takeover.bridge}-port-{port.name}.nmconnection", text)
    return NmPort(uuid=own, nic=port.name)


def _is_own(profile: NmProfile) -> bool:
    """Whether it is the administrator's, and not made anew at each boot."""
    return profile.file.path.startswith("/etc/")


def _check_own(profile: NmProfile) -> None:
    if not _is_own(profile):
        raise Refused(
            f"{profile.file.path} can not be changed", why="something makes it at each boot"
        )


def _port_profile(view: NmView, bridge: NmProfile, nic: str) -> NmProfile | None:
    """The profile by which a NIC is a port of the bridge."""
    names = {bridge.uuid, edit.get(bridge.text, "connection", "interface-name"),
             edit.get(bridge.text, "connection", "id")}  # fmt: skip
    facts = view.device(nic)
    found = []
    for profile in view.profiles:
        text = profile.text
        master = [edit.get(text, "connection", x) for x in ("controller", "master")]
        if not names & {x for x in master if x}:
            continue
        mac = (edit.get(text, "ethernet", "mac-address") or "").lower()
        if (
            profile.uuid == facts.active
            or edit.get(text, "connection", "interface-name") == nic
            or (mac and mac in {facts.permanent_mac, facts.mac})
        ):
            found.append(profile)
    return next((x for x in found if x.uuid == facts.active), found[0] if found else None)


def take_port(work: Work, bridge: NmProfile, nic: str, addressing: NmProfile | None) -> str | None:
    """Have a NIC be no port any more; the UUID of the profile it has then.

    With `addressing` it gets that bridge's addresses, unless its old profile says the same.
    """
    profile = _port_profile(work.view, bridge, nic)
    if profile is None:
        return None
    _check_own(profile)
    if edit.get(profile.text, "user", BECAME) is not None:
        text = sections.no_port(profile.text)
        work.put(profile.file, sections.with_addressing(text, addressing))
        return profile.uuid
    for held in (edit.get(profile.text, "user", HELD_BACK) or "").split():
        other = work.view.profile(held)
        if other is not None and _is_own(other):
            work.put(other.file, edit.without(work.now(other), "connection", "autoconnect"))
    old = work.view.profile(edit.get(profile.text, "user", INSTEAD_OF))
    if old is not None:
        work.put(profile.file, None)
        if addressing is not None and not sections.says_the_same(addressing, old):
            _check_own(old)
            work.put(old.file, sections.with_addressing(work.now(old), addressing))
        return old.uuid
    if addressing is None:
        work.put(profile.file, None)
        return None
    text = sections.with_addressing(sections.no_port(profile.text), addressing)
    work.put(profile.file, edit.put(text, "connection", "id", nic))
    return profile.uuid


def delete(view: NmView, takeover: Takeover) -> HandedOver:
    """The bridge goes, and its addressing returns to its first port. Raises `NotFound`."""
    bridge = _known(view, takeover.bridge)
    _check_own(bridge)
    work = Work(view)
    work.put(bridge.file, None)
    given: dict[str, str | None] = {}
    for port in takeover.ports:
        addressing = bridge if port.name == takeover.heir_of else None
        given[port.name] = take_port(work, bridge, port.name, addressing)
    ports = _ports(view, bridge, takeover.ports)
    return told.give(work, takeover, bridge, ports, given)


def _known(view: NmView, name: str) -> NmProfile:
    found = find_bridge(view, name)
    if found is None:
        raise NotFound(
            f"NetworkManager has no profile of a bridge {name}", hint="nmcli connection show"
        )
    return found


def _ports(view: NmView, bridge: NmProfile, ports: tuple[BridgePort, ...]) -> tuple[NmPort, ...]:
    found = [(x.name, _port_profile(view, bridge, x.name)) for x in ports]
    return tuple(NmPort(uuid=p.uuid, nic=name) for name, p in found if p is not None)


def set_ports(view: NmView, before: Takeover, after: Takeover) -> HandedOver:
    """Ports come and go; the bridge's own profile stays. Raises `NotFound` or `Refused`."""
    bridge = _known(view, after.bridge)
    known = {x.name for x in before.ports}
    left = {x.name for x in after.ports}
    if known == left:
        raise InvalidInput(f"{after.bridge} has these ports already")
    _check(view, after)
    work = Work(view)
    added = tuple(add_port(work, after, x, bridge.uuid) for x in after.ports if x.name not in known)
    gone = tuple(x for x in before.ports if x.name not in left)
    ports = _ports(view, bridge, gone)
    given = {x.name: take_port(work, bridge, x.name, None) for x in gone}
    return told.change(work, bridge, added, ports, given)
