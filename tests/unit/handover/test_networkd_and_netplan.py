"""Golden folders: before, what is asked, and after, as it lies on disk; there and back again.

A case is a folder `networkd/NAME` or `netplan/NAME` with `before/` (a tree), `case.json` (the
takeover and the links as networkd has them), `after/` (the files that change; an empty file named
`NAME.gone` for one that goes) and `told.txt` (calls and notes).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from msgspec.structs import replace

from kvmnet.adapters import manager_netplan, manager_networkd
from kvmnet.errors import Refused
from kvmnet.formats import (
    netplan_bridge,
    netplan_keys,
    netplan_networkmanager,
    networkd,
    networkd_bridge,
)
from kvmnet.formats import networkd_units as units
from kvmnet.model.handover import FileState, HandedOver, ManagerCall, NetworkdReload, NmLoad, NmUp
from kvmnet.model.netplan import NetplanView
from kvmnet.model.networkd import NetworkdLink, NetworkdView
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

HERE = Path(__file__).parent
CASES = sorted(x.parent for manager in ("networkd", "netplan")
               for x in HERE.glob(f"{manager}/*/case.json"))  # fmt: skip

View = NetworkdView | NetplanView


class Case(msgspec.Struct, frozen=True, kw_only=True):
    op: str
    takeover: Takeover
    links: tuple[NetworkdLink, ...]
    devices: tuple[NmFacts, ...] = ()
    """As NetworkManager has them, where it is netplan's renderer."""


def _case(folder: Path) -> Case:
    return msgspec.json.decode((folder / "case.json").read_bytes(), type=Case)


KEEPING = [x for x in CASES if _case(x).takeover.address == "keep"]
"""Where the addressing is not given up on purpose."""


def _view(folder: Path, case: Case) -> View:
    # A tree in git has neither owners nor all modes.
    view = manager_networkd.observe(folder / "before")
    own = tuple(replace(x, mode=0o644, uid=0, gid=0) for x in view.files)
    networkd_view = NetworkdView(files=own, links=case.links)
    if folder.parent.name == "networkd":
        return networkd_view
    found = manager_netplan.observe(folder / "before")
    files = tuple(replace(x, mode=0o600, uid=0, gid=0) for x in found.files)
    return NetplanView(
        files=files,
        networkd=networkd_view,
        nm=NmView(profiles=_profiles(found), devices=case.devices),
        cloud_init=found.cloud_init,
    )


def _profiles(found: NetplanView) -> tuple[NmProfile, ...]:
    """With the UUIDs that NetworkManager gives them."""
    return tuple(
        NmProfile(
            file=replace(x.file, mode=0o600, uid=0, gid=0),
            uuid=netplan_networkmanager.uuid_of(Path(x.file.path).stem.removeprefix("netplan-")),
        )
        for x in found.nm.profiles
    )


def _pure(folder: Path) -> ModuleType:
    return networkd_bridge if folder.parent.name == "networkd" else netplan_bridge


def _create(folder: Path) -> HandedOver:
    case = _case(folder)
    made: HandedOver = _pure(folder).create(_view(folder, case), case.takeover)
    return made


def _told(made: HandedOver) -> str:
    lines = []
    for moment in ("calls_first", "calls", "calls_back_first", "calls_back", "calls_back_at_boot"):
        calls: tuple[ManagerCall, ...] = getattr(made, moment)
        lines += [f"{moment}:"] if calls else []
        for call in calls:
            lines.append(f"  {call}")
            if isinstance(call, NmLoad):
                lines += [
                    f"    {x}" for x in call.paths if x not in {y.path for y in call.volatile}
                ]
                for file in call.volatile:
                    lines += [
                        f"    + {file.path}",
                        *(f"    | {x}".rstrip() for x in (file.text or "").splitlines()),
                    ]
            if isinstance(call, NmUp):
                lines += [f"    with port {x.nic} by {x.uuid}" for x in call.ports]
                lines += [f"    as {call.role}"] * bool(call.role)
                lines += [f"    keeps the addresses of {call.keeps_from}"] * bool(call.keeps_from)
                lines += [f"    instead of {call.instead_of}"] * bool(call.instead_of)
            if isinstance(call, NetworkdReload):
                lines += [f"    {'-' if x.text is None else '+'} {x.path}" for x in call.volatile]
                lines += [f"    announce {x}" for x in call.bridges]
                lines += [
                    f"    wait for {x.link} by {x.unit}" + (", leased" if x.leased else "")
                    for x in call.links
                ]
    lines += [f"note: {x}" for x in made.notes]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("folder", CASES, ids=lambda x: f"{x.parent.name}-{x.name}")
def test_the_files_after_the_hand_over_are_those_of_the_case(folder: Path) -> None:
    made = _create(folder)
    after = folder / "after"
    wanted = {
        f"/{x.relative_to(after)}": x.read_bytes().decode() for x in after.rglob("*") if x.is_file()
    }
    assert {x.path: x.text for x in made.files} == wanted
    assert _told(made) == (folder / "told.txt").read_text()


@pytest.mark.parametrize("folder", CASES, ids=lambda x: f"{x.parent.name}-{x.name}")
def test_the_files_before_are_those_that_are_there(folder: Path) -> None:
    made = _create(folder)
    assert [x.path for x in made.files_before] == [x.path for x in made.files]
    for state in made.files_before:
        path = folder / "before" / state.path.lstrip("/")
        assert state.text == (path.read_bytes().decode() if path.is_file() else None)


def _with(view: View, made: HandedOver, case: Case) -> View:
    """The view after the hand-over was carried out."""
    if isinstance(view, NetplanView):
        return NetplanView(
            files=_merged(view.files, made.files, "/netplan/"),
            networkd=_with_units(view.networkd, made, case, "/run/systemd/network/10-netplan-"),
            nm=view.nm,
            cloud_init=view.cloud_init,
        )
    return _with_units(view, made, case, "")


def _with_units(view: NetworkdView, made: HandedOver, case: Case, run: str) -> NetworkdView:
    expected = {x.link: x.unit for y in made.calls if isinstance(y, NetworkdReload)
                for x in y.links}  # fmt: skip
    links = [replace(x, unit=expected.get(x.name, x.unit)) for x in view.links]
    if case.takeover.bridge in expected:
        links.append(NetworkdLink(name="br0", unit=expected["br0"], state="configured"))
    return NetworkdView(
        files=_merged(view.files, made.files, "/systemd/network/"), links=tuple(links)
    )


def _merged(
    old: tuple[FileState, ...], new: tuple[FileState, ...], where: str
) -> tuple[FileState, ...]:
    mine = {x.path: x for x in new if where in x.path}
    names = {Path(x).name for x in mine}
    kept = [x for x in old if x.path not in mine and not (where == "/netplan/"
            and Path(x.path).name in names)]  # fmt: skip
    every = [*(x for x in mine.values() if x.text is not None), *kept]
    return tuple(sorted(every, key=lambda x: Path(x.path).name))


@pytest.mark.parametrize("folder", KEEPING, ids=lambda x: f"{x.parent.name}-{x.name}")
def test_a_bridge_that_goes_leaves_an_equivalent_configuration(folder: Path) -> None:
    case = _case(folder)
    view = _view(folder, case)
    made = _pure(folder).create(view, case.takeover)
    then = _with(view, made, case)
    gone = _pure(folder).delete(then, case.takeover)
    last = _with(then, gone, replace(case, takeover=replace(case.takeover, bridge="-")))
    if isinstance(view, NetplanView) and isinstance(last, NetplanView):
        assert _addressing(last, case) == _addressing(view, case)
        assert not any("br0" in (x.text or "") for x in last.files)
    elif isinstance(view, NetworkdView) and isinstance(last, NetworkdView):
        # The NIC's own file was never touched, and nothing of the bridge's is left.
        assert {x.path: x.text for x in last.files} == {x.path: x.text for x in view.files}


def _addressing(view: NetplanView, case: Case) -> dict[str, object]:
    """What netplan gives the first port, lists of several files joined as it joins them."""
    work = netplan_bridge.Work(view)
    device = work.device(case.takeover.ports[0].name) if case.takeover.ports else None
    found: dict[str, object] = {}
    for path in device.paths if device else ():
        for key, value in work.body(path, device).items() if device else ():
            old = found.get(key)
            joined = [*old, *value] if isinstance(old, list) and isinstance(value, list) else value
            if key in netplan_keys.ADDRESSING:
                found[key] = joined
    return found


@pytest.mark.parametrize("folder", CASES, ids=lambda x: f"{x.parent.name}-{x.name}")
def test_what_a_file_says_is_kept_byte_for_byte_where_nothing_is_asked(folder: Path) -> None:
    for path in (folder / "before").rglob("*"):
        if path.suffix == ".yaml":
            text = path.read_bytes().decode()
            assert netplan_bridge.NetplanText(text, str(path)).text == text
        elif path.suffix in (".network", ".netdev", ".conf"):
            text = path.read_bytes().decode()
            joined = "".join(x.text for x in units.parse(text, str(path)))
            assert text.startswith(joined.rstrip("\n"))
            parsed = [(x.name, [(y.key, y.value) for y in x.entries])
                      for x in units.parse(text, str(path))]  # fmt: skip
            assert len(parsed) == len(networkd.parse_unit(text))


def test_the_uuid_of_netplans_profile_is_the_one_that_networkmanager_gives_it() -> None:
    """Seen with NetworkManager 1.42 and netplan 0.106."""
    assert netplan_networkmanager.uuid_of("enp0s3") == "1eef7e45-3b9d-3043-bee3-fc5925c90273"
    assert netplan_networkmanager.uuid_of("br0") == "00679506-5c05-3c3d-bdfe-474849762078"


WRITTEN_BY_NM = """network:
  version: 2
  ethernets:
    NM-14f59568-5076-387a-aef6-10adfcca2e26:
      renderer: NetworkManager
      match:
        name: "eth0"
      dhcp4: true
      dhcp6: true
      wakeonlan: true
      networkmanager:
        uuid: "14f59568-5076-387a-aef6-10adfcca2e26"
        name: "Wired connection 1"
        passthrough:
          connection.autoconnect-priority: "-999"
          connection.timestamp: "1700000000"
          ethernet._: ""
          ipv6.addr-gen-mode: "default"
          ipv6.ip6-privacy: "-1"
          proxy._: ""
"""
"""As NetworkManager of Ubuntu 23.10 and later keeps a profile of its own: 90-NM-UUID.yaml."""


def test_a_definition_that_networkmanager_writes_itself_is_refused_with_the_way_out() -> None:
    path = "/etc/netplan/90-NM-14f59568-5076-387a-aef6-10adfcca2e26.yaml"
    view = NetplanView(
        files=(FileState(path=path, text=WRITTEN_BY_NM, mode=0o600),),
        networkd=NetworkdView(files=(), links=()),
        nm=NmView(profiles=(), devices=(NmFacts(name="eth0", state="connected"),)),
        cloud_init="absent",
    )
    takeover = Takeover(
        bridge="br0", mac=Mac("52:54:00:77:00:20"), heir_of="eth0",
        ports=(BridgePort(name="eth0", mac=Mac("52:54:00:77:00:20")),),
    )  # fmt: skip
    with pytest.raises(Refused) as caught:
        netplan_bridge.create(view, takeover)
    assert "NetworkManager has written" in str(caught.value)
    assert "Wired connection 1" in caught.value.why
    assert "definition of your own" in caught.value.hint
