"""Golden folders: NetworkManager's profiles before, what is asked, and after; there and back again.

A case is a folder `networkmanager/NAME` with `before/` (a tree), `case.json` (the takeover and what
NetworkManager does with the NICs), `after/` (the files that change) and `told.txt` (the calls).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from kvmnet.adapters import manager_networkmanager
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import networkmanager, networkmanager_bridge
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.formats import networkmanager_sections as sections
from kvmnet.model.handover import FileState, HandedOver, ManagerCall, NmUp
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

HERE = Path(__file__).parent / "networkmanager"
CASES = sorted(x.parent for x in HERE.glob("*/case.json"))
MAC = Mac("52:54:00:77:00:20")
FOLDER = "/etc/NetworkManager/system-connections"

cases = pytest.mark.parametrize("folder", CASES, ids=lambda x: x.name)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    takeover: Takeover
    devices: tuple[NmFacts, ...]


def _case(folder: Path) -> Case:
    return msgspec.json.decode((folder / "case.json").read_bytes(), type=Case)


def _view(folder: Path) -> NmView:
    # A tree in git has neither owners nor all modes.
    found = manager_networkmanager.observe(folder / "before").profiles
    own = (replace(x, file=replace(x.file, mode=0o600, uid=0, gid=0)) for x in found)
    return NmView(profiles=tuple(own), devices=_case(folder).devices)


def _create(folder: Path) -> HandedOver:
    return networkmanager_bridge.create(_view(folder), _case(folder).takeover)


def _told(made: HandedOver) -> str:
    lines = []
    for moment in ("calls_first", "calls", "calls_back_first", "calls_back"):
        calls: tuple[ManagerCall, ...] = getattr(made, moment)
        lines += [f"{moment}:"] if calls else []
        for call in calls:
            lines.append(f"  {call}")
            if isinstance(call, NmUp):
                lines += [f"    with port {x.nic} by {x.uuid}" for x in call.ports]
                lines += [f"    keeps the addresses of {call.keeps_from}"] * bool(call.keeps_from)
                lines += [f"    instead of {call.instead_of}"] * bool(call.instead_of)
    lines += [f"note: {x}" for x in made.notes]
    return "\n".join(lines) + "\n"


@cases
def test_the_files_after_the_hand_over_are_those_of_the_case(folder: Path) -> None:
    made = _create(folder)
    after = folder / "after"
    wanted = {f"/{x.relative_to(after)}": x.read_text() for x in after.rglob("*") if x.is_file()}
    assert {x.path: x.text for x in made.files} == wanted
    assert _told(made) == (folder / "told.txt").read_text()


@cases
def test_nobody_else_can_read_what_is_written(folder: Path) -> None:
    """Profiles may hold secrets, and NetworkManager passes over those that others can read."""
    assert {(x.mode, x.uid, x.gid) for x in _create(folder).files} == {(0o600, 0, 0)}


@cases
def test_the_files_before_are_those_that_are_there(folder: Path) -> None:
    made = _create(folder)
    assert [x.path for x in made.files_before] == [x.path for x in made.files]
    for state in made.files_before:
        path = folder / "before" / state.path.lstrip("/")
        assert state.text == (path.read_text() if path.is_file() else None)


@cases
def test_planned_twice_it_is_the_same(folder: Path) -> None:
    assert _create(folder) == _create(folder)


@cases
def test_every_profile_is_read_without_a_loss(folder: Path) -> None:
    for profile in _view(folder).profiles:
        assert edit.text_of(edit.groups(profile.text)) == profile.text


def _after(view: NmView, made: HandedOver, takeover: Takeover) -> NmView:
    """The view once the hand-over was carried out, and NetworkManager was told."""
    files = {x.file.path: x for x in view.profiles}
    for state in made.files:
        own = edit.get(state.text or "", "connection", "uuid") or ""
        files[state.path] = NmProfile(file=state, uuid=own)
    adopted = next(x for x in made.calls if isinstance(x, NmUp))
    active = {x.nic: x.uuid for x in adopted.ports} | {takeover.bridge: adopted.uuid}
    devices = [replace(x, active=active.get(x.name, x.active)) for x in view.devices]
    devices.append(NmFacts(name=takeover.bridge, active=adopted.uuid, mac=takeover.mac))
    return NmView(
        profiles=tuple(x for x in files.values() if x.file.text is not None),
        devices=tuple(devices),
    )


BACK = [x for x in CASES if _case(x).takeover.address == "keep"]


@pytest.mark.parametrize("folder", BACK, ids=lambda x: x.name)
def test_a_deleted_bridge_leaves_the_files_as_they_were(folder: Path) -> None:
    view, takeover = _view(folder), _case(folder).takeover
    there = _after(view, networkmanager_bridge.create(view, takeover), takeover)
    back = networkmanager_bridge.delete(there, takeover)
    left = {x.file.path: x.text for x in there.profiles} | {x.path: x.text for x in back.files}
    for profile in view.profiles:
        own = _meaning(profile.text)
        assert _meaning(left.pop(profile.file.path) or "") == own, profile.file.path
    assert not [path for path, text in left.items() if text is not None]


def _meaning(text: str) -> set[tuple[str, str, str]]:
    """Every key and value; `autoconnect` is on if nothing is said."""
    return {
        (group.name, key, value) for group in edit.groups(text) for key, value in group.pairs
        if (group.name, key, value) != ("connection", "autoconnect", "true")
    }  # fmt: skip


def test_the_nics_profile_comes_back_word_for_word() -> None:
    folder = HERE / "static"
    view, takeover = _view(folder), _case(folder).takeover
    there = _after(view, networkmanager_bridge.create(view, takeover), takeover)
    back = networkmanager_bridge.delete(there, takeover)
    own = view.profiles[0]
    assert next(x.text for x in back.files if x.path == own.file.path) == own.text


def test_an_address_that_the_bridge_got_later_goes_to_the_nic() -> None:
    folder = HERE / "static"
    view, takeover = _view(folder), _case(folder).takeover
    there = _after(view, networkmanager_bridge.create(view, takeover), takeover)
    changed = tuple(
        replace(x, file=replace(x.file, text=x.text.replace("192.0.2.10/24", "192.0.2.77/24")))
        if x.file.path == f"{FOLDER}/br0.nmconnection"
        else x
        for x in there.profiles
    )
    back = networkmanager_bridge.delete(replace(there, profiles=changed), takeover)
    path = view.profiles[0].file.path
    text = next(x.text for x in back.files if x.path == path) or ""
    assert edit.get(text, "ipv4", "address1") == "192.0.2.77/24,192.0.2.1"
    assert edit.get(text, "connection", "autoconnect") is None
    assert any(str(x) == "nmcli device reapply eth0" for x in back.calls)


def test_a_port_comes_and_goes_again() -> None:
    folder = HERE / "static"
    view, one = _view(folder), _case(folder).takeover
    there = _after(view, networkmanager_bridge.create(view, one), one)
    spare = NmFacts(name="eth1", state="disconnected", permanent_mac=Mac("52:54:00:77:00:21"))
    there = replace(there, devices=(*there.devices, spare))
    port = BridgePort(name="eth1", mac=Mac("52:54:00:77:00:21"))
    two = replace(one, ports=(*one.ports, port))
    added = networkmanager_bridge.set_ports(there, one, two)
    assert [x.path for x in added.files] == [f"{FOLDER}/br0-port-eth1.nmconnection"]
    profile = NmProfile(
        file=added.files[0], uuid=edit.get(added.files[0].text or "", "connection", "uuid") or ""
    )
    now = replace(
        there,
        profiles=(*there.profiles, profile),
        devices=(*there.devices[:-1], replace(spare, active=profile.uuid)),
    )
    gone = networkmanager_bridge.set_ports(now, two, one)
    assert [(x.path, x.text) for x in gone.files] == [(added.files[0].path, None)]
    assert _told(gone).startswith(f"calls_first:\n  nmcli connection down {profile.uuid}\n")


def _one(text: str, **facts: str) -> NmView:
    file = FileState(path=f"{FOLDER}/lan.nmconnection", text=text, mode=0o600)
    device = NmFacts(name="eth0", active="u", mac=MAC, state=facts.get("state", "connected"))
    path = facts.get("path")
    if path is not None:
        file = replace(file, path=path)
    return NmView(profiles=(NmProfile(file=file, uuid="u"),), devices=(device,))


TAKEOVER = Takeover(
    bridge="br0", mac=MAC, ports=(BridgePort(name="eth0", mac=MAC),), heir_of="eth0"
)
LAN = "[connection]\nid=lan\nuuid=u\ntype=ethernet\ninterface-name=eth0\n"


@pytest.mark.parametrize(
    ("view", "word"),
    [
        (_one(LAN, state="unmanaged"), "does not manage"),
        (_one(LAN, path="/run/NetworkManager/system-connections/netplan-eth0.nmconnection"),
         "netplan"),
        (_one(LAN + "master=br9\nslave-type=bridge\n"), "port already"),
        (_one("[connection]\ntype=bridge\nuuid=u\ninterface-name=br0\n"), "already"),
        (_one(LAN, path=f"{FOLDER}/br0.nmconnection"), "is there already"),
    ],
)  # fmt: skip
def test_what_can_not_be_kept_is_refused(view: NmView, word: str) -> None:
    with pytest.raises(Refused) as caught:
        networkmanager_bridge.create(view, TAKEOVER)
    assert word in str(caught.value)


def test_a_nic_without_a_profile_leaves_its_bridge_none() -> None:
    text = networkmanager_bridge.create(NmView(), TAKEOVER).files[0].text or ""
    assert edit.get(text, "ipv4", "method") == "disabled"


def test_an_unknown_bridge_and_ports_that_stay_are_refused() -> None:
    with pytest.raises(NotFound):
        networkmanager_bridge.delete(_one(LAN), TAKEOVER)
    bridge = _one("[connection]\ntype=bridge\nuuid=u\ninterface-name=br0\n")
    with pytest.raises(InvalidInput):
        networkmanager_bridge.set_ports(bridge, TAKEOVER, TAKEOVER)
    with pytest.raises(Refused):
        sections.bridge_text(replace(TAKEOVER, forward_delay_s=2.5), "u", None, None, 1)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("[a]\nx=1\n", "[a]\nx=2\n"),
        ("[a]\ny=1\n\n[b]\n", "[a]\ny=1\nx=2\n\n[b]\n"),
        ("[b]\nx=1", "[b]\nx=1\n\n[a]\nx=2\n"),
        ("[a]\n# x=0\n\n# of b\n[b]\n", "[a]\nx=2\n# x=0\n\n# of b\n[b]\n"),
        ("[a]\nx=0\nx=1\n", "[a]\nx=2\n"),
        ("", "[a]\nx=2\n"),
    ],
)
def test_a_key_is_set_where_it_belongs(text: str, after: str) -> None:
    assert edit.put(text, "a", "x", "2") == after


IF_INET6 = """\
fe800000000000001ccf000200030004 02 40 20 80     eth0
20010db8000000001ccf000200030004 02 40 00 01     eth0
20010db8000000001ccf000200030005 02 40 00 80     eth0
20010db8000000001ccf000200030007 02 80 00 00     eth0
20010db800000000aaaa000200030006 02 40 00 00     eth1
20010db800000000505400fffe770020 02 40 00 00     eth2
"""
"""Link-local, temporary, static, by DHCPv6; made of a secret; made of the MAC."""


@pytest.mark.parametrize(
    ("nic", "token"), [("eth0", None), ("eth1", "::aaaa:2:3:6"), ("eth2", None), ("eth9", None)]
)
def test_an_interface_identifier_counts_where_it_is_of_a_routers_prefix_and_not_of_the_mac(
    nic: str, token: str | None
) -> None:
    assert networkmanager.token(IF_INET6, nic, Mac("52:54:00:77:00:20")) == token


def test_a_port_that_waited_for_an_address_in_vain_does_not_wait_again_on_the_way_back() -> None:
    """nmcli would wait for a DHCP server that does not answer, and the undo would fail."""
    folder = HERE / "static"
    view, one = _view(folder), _case(folder).takeover
    there = _after(view, networkmanager_bridge.create(view, one), one)
    spare = NmFacts(
        name="eth1",
        state="connecting (getting IP configuration)",
        active="of-eth1",
        permanent_mac=Mac("52:54:00:77:00:21"),
    )
    there = replace(there, devices=(*there.devices, spare))
    port = BridgePort(name="eth1", mac=Mac("52:54:00:77:00:21"))
    added = networkmanager_bridge.set_ports(there, one, replace(one, ports=(*one.ports, port)))
    assert [str(x).split()[2] for x in added.calls_back_first] == ["down"]
