"""What only the doctor reads, from trees of files: planned bridges, the machine, the helper."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.adapters import configured, machine
from kvmnet.model.host import Link
from kvmnet.model.setup import AclRule, ConfiguredBridge

LINKS = (
    Link(index=2, name="enp3s0", kind="ethernet", mac="52:54:00:00:00:01", altnames=("eno9",)),
    Link(index=3, name="br0", kind="bridge", mac="52:54:00:00:00:01"),
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def one(root: Path) -> ConfiguredBridge:
    (bridge,), missing = configured.read_configured(LINKS, root)
    assert not missing
    return bridge


def ports(bridge: ConfiguredBridge) -> dict[str, str | None]:
    return {x.name: x.link for x in bridge.ports}


def test_ifupdown(tmp_path: Path) -> None:
    text = ("auto lo\niface br0 inet static\n  address 192.0.2.1/24\n"
            "  bridge_ports enp3s0 enp4s0\niface br0 inet6 auto\n")  # fmt: skip
    root = write(tmp_path, {"etc/network/interfaces": text, "run/network/ifstate": "br0=br0\n"})
    bridge = one(root)
    assert bridge.path == "/etc/network/interfaces" and bridge.manager == "ifupdown"
    assert ports(bridge) == {"enp3s0": "enp3s0", "enp4s0": None}
    assert not bridge.at_boot  # no `auto br0`


@pytest.mark.parametrize("value", ["none", "all", "regex eth.*"])
def test_ifupdown_ports_that_name_no_nic(tmp_path: Path, value: str) -> None:
    text = f"auto br0\niface br0 inet manual\n  bridge-ports {value}\n"
    root = write(tmp_path, {"etc/network/interfaces": text, "run/network/ifstate": ""})
    assert one(root).ports == () and one(root).at_boot


def test_files_of_a_manager_that_does_not_run_say_nothing(tmp_path: Path) -> None:
    text = "auto br0\niface br0 inet manual\n  bridge_ports enp9s0\n"
    root = write(tmp_path, {"etc/network/interfaces": text, "run/NetworkManager/x": ""})
    assert configured.read_configured(LINKS, root) == ((), ())


NETDEV = "[NetDev]\nName=br0\nKind=bridge\n"


def test_networkd(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "run/systemd/netif/links/2": "", "etc/systemd/network/br0.netdev": NETDEV,
        "etc/systemd/network/br0.network": "[Match]\nName=br*\n[Network]\nAddress=192.0.2.1/24\n",
        "etc/systemd/network/p.network": "[Match]\nName=enp4s0 eno*\n[Network]\nBridge=br0\n",
        "etc/systemd/network/q.network":
            "[Match]\nPermanentMACAddress=52:54:00:00:00:01\n[Network]\nBridge=br0\n",
    })  # fmt: skip
    bridge = one(root)
    assert ports(bridge) == {"enp4s0": None, "eno*": "enp3s0", "52:54:00:00:00:01": "enp3s0"}
    assert bridge.needs_carrier and bridge.addresses == ("192.0.2.1/24",)
    drop_in = {"etc/systemd/network/br0.network.d/x.conf": "[Network]\nConfigureWithoutCarrier=yes"}
    assert not one(write(root, drop_in)).needs_carrier


def test_networkmanager(tmp_path: Path) -> None:
    folder = "etc/NetworkManager/system-connections"
    root = write(tmp_path, {
        "run/NetworkManager/x": "",
        f"{folder}/a": "[connection]\nid=lan\nuuid=u-1\ntype=bridge\ninterface-name=br0\n"
                       "autoconnect=false\n",
        f"{folder}/b": "[connection]\nuuid=u-2\ntype=ethernet\ninterface-name=eth7\nmaster=u-1\n",
        f"{folder}/c": "[connection]\nuuid=u-3\ntype=ethernet\ncontroller=br0\n"
                       "[ethernet]\nmac-address=52:54:00:00:00:01\n",
        f"{folder}/d": "[connection]\nuuid=u-4\ntype=ethernet\ncontroller=br0\n",
    })  # fmt: skip
    bridge = one(root)
    assert ports(bridge) == {"eth7": None, "52:54:00:00:00:01": "enp3s0"}
    assert not bridge.at_boot


def test_netplan_is_asked_before_what_it_generates(tmp_path: Path) -> None:
    text = ("network:\n  ethernets:\n    lan: {match: {macaddress: '52:54:00:00:00:01'}}\n"
            "    enp7s0: {}\n  bridges:\n"
            "    br0: {interfaces: [lan, enp7s0, enp8s0]}\n")  # fmt: skip
    root = write(tmp_path, {
        "run/systemd/netif/links/2": "", "etc/netplan/a.yaml": text,
        "run/systemd/network/10-netplan-br0.netdev": NETDEV,
    })  # fmt: skip
    bridge = one(root)
    assert bridge.manager == "netplan"
    assert ports(bridge) == {"52:54:00:00:00:01": "enp3s0", "enp7s0": None, "enp8s0": None}


def test_what_is_no_unit_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "run/systemd/netif/links/2": "", "etc/systemd/network/br0.netdev": NETDEV,
        "etc/systemd/network/a.network": "what is this\n",
    })  # fmt: skip
    assert one(root).ports == ()


def test_the_bridge_helpers_list_with_its_includes(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "usr/lib/qemu/qemu-bridge-helper": "",
        "etc/qemu/bridge.conf": "# who\nallow br0\ninclude /etc/qemu/more.conf\nallow\n"
                                "include /etc/qemu/absent.conf\n",
        "etc/qemu/more.conf": "deny  br1\ninclude /etc/qemu/bridge.conf\n",
    })  # fmt: skip
    helper = machine.read_bridge_helper(root)
    assert helper.path == "/usr/lib/qemu/qemu-bridge-helper" and not helper.privileged
    assert helper.rules == (
        AclRule(path="/etc/qemu/bridge.conf", allowed=True, bridge="br0"),
        AclRule(path="/etc/qemu/more.conf", allowed=False, bridge="br1"),
    )
    (root / "usr/lib/qemu/qemu-bridge-helper").chmod(0o4755)
    assert machine.read_bridge_helper(root).privileged


def test_no_helper_and_no_list(tmp_path: Path) -> None:
    helper = machine.read_bridge_helper(tmp_path)
    assert helper.path is None and helper.rules is None


def test_the_machine(tmp_path: Path) -> None:
    assert machine.read_machine(tmp_path) == type(machine.read_machine(tmp_path))()
    root = write(tmp_path, {"sys/class/dmi/id/sys_vendor": "VMware, Inc.\n",
                            "proc/cpuinfo": "flags\t: fpu hypervisor lm\n"})  # fmt: skip
    assert machine.read_machine(root).vendor == "VMware, Inc."
    assert machine.read_machine(root).hypervisor


def test_the_counter_of_reverse_path_filtering(tmp_path: Path) -> None:
    text = ("TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 3 17\n"
            "IpExt: InNoRoutes\nIpExt: 0\n")  # fmt: skip
    root = write(tmp_path, {"proc/net/netstat": text})
    assert machine.read_rp_filter_drops(root) == 17
    assert machine.read_rp_filter_drops(tmp_path / "nowhere") is None
