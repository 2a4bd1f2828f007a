"""Who owns a NIC, from trees of files as the managers leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.adapters.managers import read_owners
from kvmnet.model.host import Link
from kvmnet.model.values import Mac

ETH0 = Link(index=2, name="eth0", kind="ethernet", mac=Mac("52:54:00:00:00:01"), driver="e1000")


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CASES: dict[str, tuple[dict[str, str], str, str | None]] = {
    "nothing": ({}, "none", None),
    "netplan by id": (
        {"etc/netplan/50-cloud-init.yaml": "network: {ethernets: {eth0: {dhcp4: true}}}"},
        "netplan", "networkd",
    ),
    "netplan by MAC, over what it made for networkd": (
        {"etc/netplan/1.yaml": "network: {ethernets: {up: {match: {macaddress: "
         "'52:54:00:00:00:01'}}}}",
         "run/systemd/netif/links/2": "ADMIN_STATE=configured\n"
         "NETWORK_FILE=/run/systemd/network/10-netplan-up.network\n"},
        "netplan", "networkd",
    ),
    "netplan of another NIC": (
        {"etc/netplan/1.yaml": "network: {ethernets: {up: {match: {macaddress: "
         "'52:54:00:00:00:02', name: 'eth*'}}}}"},
        "none", None,
    ),
    "netplan by driver, NetworkManager": (
        {"run/netplan/1.yaml": "network: {renderer: NetworkManager, ethernets: "
         "{all: {match: {driver: 'e*'}}}}"},
        "netplan", "NetworkManager",
    ),
    "a later folder's netplan file replaces one of the same name": (
        {"usr/lib/netplan/1.yaml": "network: {ethernets: {eth0: {}}}",
         "etc/netplan/1.yaml": "network: {ethernets: {eth9: {}}}"},
        "none", None,
    ),
    "networkd": (
        {"run/systemd/netif/links/2": "ADMIN_STATE=configured\n"
         "NETWORK_FILE=/etc/systemd/network/lan.network\n"},
        "systemd-networkd", None,
    ),
    "networkd, unmanaged": (
        {"run/systemd/netif/links/2": "ADMIN_STATE=unmanaged\n"}, "none", None
    ),
    "ifupdown through source": (
        {"etc/network/interfaces": "source /etc/network/interfaces.d/*\niface lo inet loopback\n",
         "etc/network/interfaces.d/lan": "auto eth0\niface eth0 inet dhcp\n",
         "run/network/ifstate": "lo=lo\neth0=eth0\n"},
        "ifupdown", None,
    ),
    "ifupdown through source-directory": (
        {"etc/network/interfaces": "source-directory interfaces.d\n",
         "etc/network/interfaces.d/lan": "iface eth0 inet dhcp\n",
         "etc/network/interfaces.d/lan~": "iface eth1 inet dhcp\n"},
        "ifupdown", None,
    ),
    "ifupdown that includes itself": (
        {"etc/network/interfaces": "source /etc/network/*\n"}, "none", None
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_owner(case: str, tmp_path: Path) -> None:
    files, manager, renderer = CASES[case]
    tree(tmp_path, files)
    (owner,), missing = read_owners((ETH0,), tmp_path)
    assert (owner.manager, owner.renderer) == (manager, renderer)
    assert missing == ()
    assert (manager == "none") == (owner.evidence == ())


@pytest.mark.parametrize(
    ("state", "manager"),
    [
        ("connected", "NetworkManager"),
        ("disconnected", "NetworkManager"),
        ("connected (externally)", "none"),
        ("unmanaged", "none"),
    ],
)
def test_network_manager(state: str, manager: str, tmp_path: Path) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    answer = f"eth0:ethernet:{state}:LAN\n"
    (owner,), missing = read_owners((ETH0,), tmp_path, lambda: answer)
    assert (owner.manager, missing) == (manager, ())


def test_libvirt_names_and_loopback(tmp_path: Path) -> None:
    names = (("lo", "loopback"), ("virbr0", "bridge"), ("vnet12", "tap"), ("virbr", "bridge"))
    links = [Link(index=i, name=n, kind=k) for i, (n, k) in enumerate(names, 1)]
    owners, _ = read_owners(links, tmp_path)
    assert [(x.link, x.manager) for x in owners] == [
        ("virbr0", "libvirt"),
        ("vnet12", "libvirt"),
        ("virbr", "none"),
    ]


@pytest.mark.parametrize("text", ["a: [", "network: 5", "network: {ethernets: [x]}", "- 1"])
def test_broken_yaml_is_named(text: str, tmp_path: Path) -> None:
    tree(tmp_path, {"etc/netplan/bad.yaml": text, "etc/netplan/good.yaml": "network: {}"})
    (owner,), (missing,) = read_owners((ETH0,), tmp_path)
    assert owner.manager == "none"
    assert "bad.yaml" in missing.what
