"""What a diagnosis, a probe and a trace say on hosts with each manager, in containers."""

from __future__ import annotations

from typing import Any

import pytest

from machines import lan, scenarios
from machines.conftest import Machines
from machines.diagnosis import diagnose, names
from machines.images import MANAGERS
from machines.machine import Machine


def assert_nothing_is_wrong(m: Machine, *words: str) -> Any:
    """No finding, and that there is no libvirt is said once: it is not a fault of the network."""
    document = diagnose(m, *words)
    assert not names(document), document["findings"]
    gaps = [(x["why"], x["absent"]) for x in document["unread"]]
    assert gaps == [("it is not installed on this host", True)], document["unread"]
    return document


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_host_in_good_order_has_no_findings_and_its_bridge_passes_packets(
    machines: Machines, manager: str
) -> None:
    with machines.container(manager, "dual") as m:
        assert_nothing_is_wrong(m)
        m.kvmnet(*scenarios.CREATE, m.uplink)
        assert_nothing_is_wrong(m)
        document = assert_nothing_is_wrong(m, "bridge:br0")
        (probed,) = document["probes"]
        steps = {x["name"]: x for x in probed["report"]["steps"]}
        for name in ("dhcp", "gateway", "host", "target", "ipv6", "gateway6"):
            assert steps[name]["verdict"] == "ok", steps[name]
        for words in ((f"{lan.ROUTER}:53", "--proto", "udp"), (lan.ROUTER6,)):
            done = m.kvmnet("trace", "bridge:br0", "--wait", "10", *words)
            assert "arrived; the answer came back" in done.stdout, done


NETWORKD = {
    "30-br5.netdev": "[NetDev]\nName=br5\nKind=bridge\n",
    "30-br5.network": "[Match]\nName=br5\n[Network]\nAddress=10.99.0.1/24\n",
    "30-br6.netdev": "[NetDev]\nName=br6\nKind=bridge\n",
    "31-br6-port.network": "[Match]\nName=eno9\n[Network]\nBridge=br6\n",
    "30-br7.netdev": "[NetDev]\nName=br7\nKind=bridge\n",
    "30-br7.network": "[Match]\nName=br7\n[Network]\nAddress=10.97.0.2/24\n",
    "31-br7-port.network": "[Match]\nName=enp0s4\n[Network]\nBridge=br7\nAddress=10.97.0.1/24\n",
}


def test_what_networkd_makes_of_its_files_is_named_and_its_command_mends_it(
    machines: Machines,
) -> None:
    with machines.container("networkd", "static", nics=2) as m:
        for name, text in NETWORKD.items():
            m.write(f"/etc/systemd/network/{name}", text)
        m.reboot()
        lan.wait_for("br7", lambda: m.addresses("br7") and m.addresses("enp0s4"))
        document = diagnose(m)
        assert names(document) == [
            ("ip-left-on-port", "NIC enp0s4"),
            ("port-renamed", "bridge br6"),
            ("portless-bridge-address", "bridge br5"),
        ]
        assert m.addresses("br5") == set()
        for finding in document["findings"]:
            if finding["name"] != "port-renamed":  # which NIC it was is for people to say
                m.script("; ".join(finding["fix"]))
        lan.wait_for("br5's address", lambda: m.addresses("br5") == {"10.99.0.1/24"})
        assert m.addresses("br7") == {"10.97.0.1/24", "10.97.0.2/24"}
        assert names(diagnose(m)) == [("port-renamed", "bridge br6")]


IFUPDOWN = """
auto br0
iface br0 inet static
    address 10.77.0.30/24
    bridge_ports enp0s3
    bridge_fd 0
auto br6
iface br6 inet static
    address 10.98.0.1/24
    bridge_ports eno9
"""


def test_a_stanza_that_ifupdown_still_has_for_the_port_is_named(machines: Machines) -> None:
    with machines.container("ifupdown", "static") as m:
        text = m.script("cat /etc/network/interfaces")
        m.write("/etc/network/interfaces", text + IFUPDOWN)
        m.reboot()
        assert names(diagnose(m)) == [
            ("ip-left-on-port", "NIC enp0s3"),
            ("port-renamed", "bridge br6"),
        ]


PROFILES = {
    "br6": "[connection]\nid=br6\ntype=bridge\ninterface-name=br6\n"
    "uuid=0f0f0f0f-0000-4000-8000-000000000006\n[bridge]\nstp=false\n"
    "[ipv4]\nmethod=manual\naddress1=10.98.0.1/24\n[ipv6]\nmethod=disabled\n",
    "br6-port": "[connection]\nid=br6-port\ntype=ethernet\ninterface-name=eno9\n"
    "uuid=0f0f0f0f-0000-4000-8000-000000000007\nmaster=br6\nslave-type=bridge\n",
}


def test_a_profile_of_networkmanager_for_a_nic_that_is_gone_is_named(machines: Machines) -> None:
    with machines.container("networkmanager", "static", nics=2) as m:
        for name, text in PROFILES.items():
            path = f"/etc/NetworkManager/system-connections/{name}.nmconnection"
            m.write(path, text, mode=0o600)
        m.reboot()
        document = diagnose(m)
        assert names(document) == [("port-renamed", "bridge br6")]
        assert document["findings"][0]["fix"] == ["ip link set enp0s4 up master br6"]
