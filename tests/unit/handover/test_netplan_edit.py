"""Entries of netplan's YAML that are cut and put; what is refused; ports that come and go."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from ruamel.yaml import YAML

from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import netplan_bridge as bridge
from kvmnet.formats import netplan_networkmanager
from kvmnet.formats.netplan_edit import NetplanText
from kvmnet.model.handover import FileState, NetworkdReload, NmUp
from kvmnet.model.netplan import NetplanView
from kvmnet.model.networkd import NetworkdLink, NetworkdView
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

MAC = Mac("52:54:00:aa:bb:01")
PATH = "/etc/netplan/01-net.yaml"
UNIT = "/run/systemd/network/10-netplan-eth0.network"
TAKEOVER = Takeover(
    bridge="br0", mac=MAC, ports=(BridgePort(name="eth0", mac=MAC),), heir_of="eth0"
)
ETH = "network:\n  version: 2\n  ethernets:\n    eth0:\n"


def _view(text: str, path: str = PATH) -> NetplanView:
    return NetplanView(
        files=(FileState(path=path, text=text, mode=0o640, uid=0, gid=4),),
        networkd=NetworkdView(
            files=(FileState(path=UNIT, text="[Match]\nName=eth0\n"),),
            links=(NetworkdLink(name="eth0", unit=UNIT, state="configured", mac=MAC),),
        ),
    )


def test_owner_and_mode_of_a_file_stay_and_a_new_file_is_closed_to_others() -> None:
    made = bridge.create(_view(f"{ETH}      dhcp4: true\n"), TAKEOVER)
    assert (made.files[0].mode, made.files[0].gid) == (0o640, 4)
    made = bridge.create(_view(f"{ETH}      dhcp4: true\n", "/usr/lib/netplan/x.yaml"), TAKEOVER)
    assert (made.files[0].path, made.files[0].mode) == ("/etc/netplan/x.yaml", 0o600)
    assert made.files_before[0].text is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("      shiny-new-thing: 1\n", "shiny-new-thing"),
        ("      openvswitch: {}\n", "netplan's file"),
        ("      networkmanager: {passthrough: {ipv4.method: manual}}\n", "ipv4"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(body: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        bridge.create(_view(ETH + body), TAKEOVER)
    assert reason in caught.value.why


def test_a_file_that_is_made_at_each_boot_is_refused() -> None:
    with pytest.raises(Refused, match=r"/run/netplan/eth0\.yaml can not be kept"):
        bridge.create(_view(f"{ETH}      dhcp4: true\n", "/run/netplan/eth0.yaml"), TAKEOVER)


def test_a_nic_that_netplan_does_not_define_is_refused() -> None:
    with pytest.raises(Refused, match="does not define eth0"):
        bridge.create(_view("network:\n  ethernets:\n    eth9: {dhcp4: true}\n"), TAKEOVER)


@pytest.mark.parametrize("where", ["network", "device"])
def test_the_bridge_is_told_to_the_renderer_of_its_nic(where: str) -> None:
    text = f"{ETH}      dhcp4: true\n"
    said = "renderer: NetworkManager\n"
    text += f"  {said}" if where == "network" else f"      {said}"
    made = bridge.create(_view(text), TAKEOVER)
    assert [str(x).split()[0] for x in made.calls] == ["netplan", "nmcli", "nmcli"]
    assert (made.files[0].text or "").count(said) == (1 if where == "network" else 2)


def test_ports_of_two_renderers_are_refused() -> None:
    text = f"{ETH}      dhcp4: true\n    eth1:\n      renderer: NetworkManager\n"
    two = replace(TAKEOVER, ports=(*TAKEOVER.ports, BridgePort(name="eth1")))
    with pytest.raises(Refused, match="netplan has NetworkManager manage eth1"):
        bridge.create(_view(text), two)


def test_a_bridge_of_that_name_is_refused() -> None:
    text = f"{ETH}      dhcp4: true\n  bridges:\n    br0: {{}}\n"
    with pytest.raises(Refused, match="makes a br0 already"):
        bridge.create(_view(text), TAKEOVER)


def test_anchors_are_refused_rather_than_given_another_meaning() -> None:
    text = (
        "network:\n  ethernets:\n    eth1: &same\n      dhcp4: true\n"
        "    eth0:\n      <<: *same\n      mtu: 1400\n"
    )
    with pytest.raises(Refused, match="can not edit"):
        bridge.create(_view(text), TAKEOVER)


def test_half_a_second_is_not_said_in_netplan() -> None:
    with pytest.raises(InvalidInput, match="whole seconds"):
        bridge.create(
            _view(f"{ETH}      dhcp4: true\n"), replace(TAKEOVER, stp=True, forward_delay_s=2.5)
        )


def test_what_is_no_yaml_is_said_with_its_path() -> None:
    with pytest.raises(InvalidInput, match=PATH):
        bridge.create(_view("network: [\n"), TAKEOVER)


def test_ports_come_and_go_in_the_list_of_the_bridge() -> None:
    text = (
        f"{ETH}      dhcp4: false\n    eth1:\n      dhcp4: true  # spare\n  bridges:\n    br0:\n"
        "      # all of them\n      interfaces:\n      - eth0\n      dhcp4: true\n"
    )
    second = BridgePort(name="eth1", mac=Mac("52:54:00:aa:bb:02"))
    after = replace(TAKEOVER, ports=(*TAKEOVER.ports, second))
    made = bridge.set_ports(_view(text), TAKEOVER, after)
    now = made.files[0].text or ""
    assert "      # all of them\n      interfaces: [eth0, eth1]\n      dhcp4: true\n" in now
    assert "    eth1:\n      dhcp4: false\n" in now
    back = bridge.set_ports(_view(now), after, TAKEOVER)
    assert "interfaces: [eth0]" in (back.files[0].text or "")
    first = back.calls_first[0]
    assert isinstance(first, NetworkdReload)
    assert [x.link for x in first.links] == ["eth1"]


@pytest.mark.parametrize("what", ["delete", "set_ports"])
def test_a_bridge_that_netplan_does_not_make_is_not_found(what: str) -> None:
    view = _view(f"{ETH}      dhcp4: true\n")
    with pytest.raises(NotFound, match="makes no bridge br0"):
        if what == "delete":
            bridge.delete(view, TAKEOVER)
        else:
            bridge.set_ports(view, TAKEOVER, TAKEOVER)


def test_a_bridge_of_the_administrator_s_own_gives_its_addresses_back() -> None:
    text = (
        "network:\n  version: 2\n  ethernets:\n    eth0: {}\n  bridges:\n    # ours\n    br0:\n"
        "      interfaces: [eth0]\n      # the monitoring knows it\n      addresses:\n"
        "        - 192.0.2.5/24\n      parameters: {stp: false}\n"
    )
    made = bridge.delete(_view(text), TAKEOVER)
    assert made.files[0].text == (
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      # the monitoring knows it\n"
        "      addresses:\n        - 192.0.2.5/24\n"
    )


_SCALARS = st.one_of(
    st.booleans(),
    st.integers(0, 9999),
    st.sampled_from(["yes", "52:54:00:11:22:33", "a b", "#", ""]),
)
_KEYS = st.sampled_from(["dhcp4", "eth0", "a-b", "0-x", "yes", "x y"])
_VALUES = st.recursive(
    _SCALARS,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(_KEYS, x, max_size=3),
    max_leaves=8,
)
_DEVICES = st.dictionaries(_KEYS, st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=3)


@settings(deadline=None, max_examples=60)
@given(_DEVICES, st.booleans(), st.integers(2, 5), st.data())
def test_any_entry_can_be_moved_and_moved_back(
    devices: dict[str, Any], flow: bool, indent: int, data: st.DataObject
) -> None:
    network: dict[str, Any] = {"network": {"ethernets": devices, "version": 2}}
    text = _written(network, flow, indent)
    entries = [(d, k) for d, body in devices.items() for k in body]
    edited = NetplanText(text, "x.yaml")
    assert edited.text == text
    if not entries:
        return
    device, key = data.draw(st.sampled_from(entries))
    value = devices[device][key]
    edited.put(
        ("network", "bridges", "br0", key), edited.cut(("network", "ethernets", device, key))
    )
    moved = _read(edited.text)
    assert moved["network"]["bridges"] == {"br0": {key: value}}
    assert key not in (moved["network"]["ethernets"][device] or {})
    edited.put(
        ("network", "ethernets", device, key), edited.cut(("network", "bridges", "br0", key))
    )
    edited.cut(("network", "bridges"))
    assert _read(edited.text) == network


def _written(data: object, flow: bool, indent: int) -> str:
    yaml, out = YAML(typ="safe", pure=True), io.StringIO()
    yaml.width = 10_000  # it breaks long lines inside keys, which it can't read back
    yaml.default_flow_style = flow
    yaml.indent = indent
    yaml.dump(data, out)
    return out.getvalue()


def _read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_a_port_of_netplans_networkmanager_comes_and_goes_by_its_own_profile() -> None:
    text = (
        "network:\n  renderer: NetworkManager\n  ethernets:\n    eth0: {dhcp4: false}\n"
        "    eth1: {dhcp4: true}\n  bridges:\n    br0: {interfaces: [eth0], dhcp4: true}\n"
    )
    two = replace(TAKEOVER, ports=(*TAKEOVER.ports, BridgePort(name="eth1")))
    added = bridge.set_ports(_view(text), TAKEOVER, two)
    up = added.calls[-1]
    assert isinstance(up, NmUp)
    assert (up.link, up.role, up.uuid) == ("eth1", "port", netplan_networkmanager.uuid_of("eth1"))
    gone = bridge.set_ports(_view(added.files[0].text or ""), two, TAKEOVER)
    assert [str(x) for x in gone.calls_first] == [f"nmcli connection down {up.uuid}"]
    assert "interfaces: [eth0]" in (gone.files[0].text or "")
