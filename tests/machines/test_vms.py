"""Bridges on hosts with each manager, in virtual machines: Debian's kernel, udev, real reboots."""

from __future__ import annotations

import time

import msgspec
import pytest

from machines import images, lasting, scenarios
from machines.conftest import Machines
from machines.diagnosis import diagnose, names
from machines.machine import Machine
from machines.scenarios import CREATE, Before

MANAGERS = tuple(x for x in images.MANAGERS if x != "netplan-nm")
"""netplan over NetworkManager is tried in containers: what udev does to it is NetworkManager's."""

MOST_LOST = 3
"""Of some thousand packets, one every 10 ms. The managers' own ways lose 13 and more."""
KILLED = [(x, ("dhcp", "static")[n % 2]) for n, x in enumerate(MANAGERS)]
ALL = [(manager, config) for manager in MANAGERS for config in ("static", "dhcp")]


@pytest.mark.parametrize(("manager", "config"), ALL)
def test_a_bridge_is_made_under_a_connection_and_survives_a_reboot(
    machines: Machines, manager: str, config: str
) -> None:
    with machines.vm(manager, config) as m:
        before = scenarios.look(m)
        with m.watched() as watch:
            time.sleep(2)
        scenarios.note(m, "nothing changed", watch.seen)
        scenarios.assert_hardly_lost(
            lambda: scenarios.create(m), lambda: scenarios.undo(m, before), MOST_LOST
        )
        scenarios.assert_bridged(m, before)
        m.reboot()
        scenarios.assert_bridged(m, before)
        undone = m.kvmnet("undo", "--yes", check=False)
        assert undone.status == 0, undone
        scenarios.assert_back(m, before)
        if (manager, config) in KILLED:
            kill_and_block(m, before)


def kill_and_block(m: Machine, before: Before) -> None:
    """Killed, or with a gateway that does not answer through a bridge, it comes back by itself."""
    done = m.kill_at("step:3", ["kvmnet", *CREATE, m.uplink])
    assert done.stdout.startswith("killed"), done
    scenarios.assert_back(m, before, scenarios.BACK_S)
    scenarios.assert_nothing_open(m)
    scenarios.block_bridges(m)
    with m.watched() as watch:
        done = m.kvmnet(*CREATE, m.uplink, check=False)
    assert done.status == 4, done
    scenarios.assert_back(m, before)
    assert watch.seen.talk.intact, watch.seen


@pytest.mark.parametrize(
    ("manager", "config"), [(x, ("static", "dhcp")[n % 2]) for n, x in enumerate(MANAGERS)]
)
def test_rebooted_half_way_it_comes_up_as_it_was(
    machines: Machines, manager: str, config: str
) -> None:
    with machines.vm(manager, config) as m:
        before = scenarios.look(m)
        scenarios.begin_unconfirmed(m, 120)
        m.power_cut()
        scenarios.assert_back(m, before)
        scenarios.assert_nothing_open(m)


def test_the_clock_is_set_in_the_middle_and_no_deadline_moves(machines: Machines) -> None:
    with machines.vm("networkd", "static") as m:
        before = scenarios.look(m)
        job = scenarios.begin_unconfirmed(m, 120)
        for way in ("6 years ago", "6 years"):
            m.script(f"date -s 'now + {way}'")
            time.sleep(1.5)  # the guard looks once a second
        assert m.is_bridged() and not job.ended
        m.kvmnet("confirm")
        assert job.wait().status == 0
        m.kvmnet("undo", "--yes")
        scenarios.assert_back(m, before)
        job = scenarios.begin_unconfirmed(m, 6)
        began = time.monotonic()
        m.script("date -s 'now + 1 year ago'")
        assert job.wait().status == 4
        assert time.monotonic() - began < scenarios.BACK_S
        scenarios.assert_back(m, before)
        scenarios.assert_nothing_open(m)


def test_a_bond_and_a_vlan_become_ports_and_frames_can_be_filtered(machines: Machines) -> None:
    with machines.vm("networkd", "bond", nics=2) as m:
        before = scenarios.look(m)
        slave = m.kvmnet("bridge", "create", "br7", "--port", "enp0s3", "--yes", check=False)
        assert slave.status == 3 and "bond0" in slave.stderr, slave
        scenarios.assert_hardly_lost(
            lambda: scenarios.create(m, "--vlan-filtering"), lambda: scenarios.undo(m, before),
            MOST_LOST,
        )  # fmt: skip
        scenarios.assert_bridged(m, before)
        assert m.links()["br0"]["linkinfo"]["info_data"]["vlan_filtering"] == 1
        below = m.kvmnet("bridge", "create", "br7", "--port", "enp0s4", "--yes")
        assert "stays with enp0s4.10" in below.stdout + below.stderr, below
        assert m.addresses("enp0s4.10") == {"10.78.0.20/24"}
        m.kvmnet("bridge", "create", "br10", "--port", "enp0s4.10", "--yes")
        assert m.addresses("br10") == {"10.78.0.20/24"}
        routes = frozenset(x.replace("dev enp0s4.10", "dev br10") for x in before.routes)
        before = msgspec.structs.replace(before, routes=routes)
        lasting.mend(m)
        m.reboot()
        scenarios.assert_bridged(m, before)
        lasting.assert_lasts(m)
        links = m.links()
        assert links["enp0s4"]["master"] == "br7"
        assert links["enp0s4.10"]["master"] == "br10"
        assert m.addresses("br10") == {"10.78.0.20/24"}
        assert links["br0"]["linkinfo"]["info_data"]["vlan_filtering"] == 1
        assert names(diagnose(m)) == []
        assert names(diagnose_with_a_guest(m, 1)) == []
        assert names(diagnose_with_a_guest(m, 20)) == [("vlan-missing", "guest web")]


ADD_GUEST = """
import json
document = json.load(open("/run/state.json"))
nic = {"type": "bridge", "mac": "52:54:00:00:07:07", "source": "br0", "target": "tap7"}
document["state"]["guests"] = [{
    "connection": "qemu:///system", "name": "web", "uuid": "0f0f0f0f-0000-4000-8000-000000000001",
    "state": "running", "active": True, "persistent": True, "live_nics": [nic]}]
json.dump(document, open("/run/state.json", "w"))
"""


def diagnose_with_a_guest(m: Machine, vlan: int) -> object:
    """The machine's State with a guest put into it whose tap is a port of br0 in that VLAN."""
    m.script(
        "ip link show tap7 || ip tuntap add tap7 mode tap; ip link set tap7 master br0 up; "
        f"bridge vlan del dev tap7 vid 1; bridge vlan add dev tap7 vid {vlan} pvid untagged; "
        "kvmnet state save /run/state.json"
    )
    m.run(["python3", "-c", ADD_GUEST])
    return diagnose(m, "--state", "/run/state.json")


VLAN_SETUP = """
set -e
ip netns add far
ip link add nic0 type veth peer name far0 netns far
ip link add nic0.7 link nic0 type vlan id 7
ip address add 10.7.0.1/24 dev nic0.7
ip link set nic0 up; ip link set nic0.7 up
ip -n far link set far0 up
ip -n far link add far0.7 link far0 type vlan id 7
ip -n far address add 10.7.0.2/24 dev far0.7
ip -n far link set far0.7 up
"""


@pytest.mark.parametrize("options", [(), ("--vlan-filtering",)], ids=["plain", "filtering"])
def test_a_vlan_keeps_its_frames_when_the_nic_below_it_becomes_a_port(
    machines: Machines, options: tuple[str, ...]
) -> None:
    with machines.vm("networkd", "static") as m:
        m.script(VLAN_SETUP)
        m.run(["ip", "link", "add", "tap7", "link", "nic0", "type", "macvtap"])
        words = ("bridge", "create", "br7", "--port", "nic0", "--yes", *options)
        refused = m.kvmnet(*words, check=False)
        assert refused.status == 3 and "tap7" in refused.stderr, refused
        assert "br7" not in m.links()
        m.run(["ip", "link", "delete", "tap7"])
        m.kvmnet(*words)
        assert m.links()["nic0"]["master"] == "br7"
        m.script("ip neigh flush dev nic0.7; ip -n far neigh flush dev far0.7")
        m.run(["ip", "netns", "exec", "far", "ping", "-c", "2", "-W", "5", "10.7.0.1"])
        m.run(["ping", "-c", "2", "-W", "5", "10.7.0.2"])


WIRELESS_BRIDGE = {
    "30-br5.netdev": "[NetDev]\nName=br5\nKind=bridge\n",
    "30-br5.network": "[Match]\nName=br5\n[Network]\nLinkLocalAddressing=no\n",
    "31-br5-port.network": "[Match]\nName=wlan1\n[Network]\nBridge=br5\n",
}


def test_a_wireless_nic_is_refused_unless_it_speaks_with_four_addresses(
    machines: Machines,
) -> None:
    with machines.vm("networkd", "static", kernel="generic") as m:
        m.run(["modprobe", "mac80211_hwsim", "radios=2"])
        scenarios.wait_for("wlan0", lambda: "wlan0" in m.links())
        before = scenarios.look(m)
        refused = m.kvmnet("bridge", "create", "br7", "--port", "wlan0", "--yes", check=False)
        assert refused.status == 3, refused
        assert "wlan0 is a wireless NIC in station mode" in refused.stderr
        for way in ("kvmnet up", "--lan-range", "type=user", "iw dev wlan0 set 4addr on"):
            assert way in refused.stderr
        scenarios.assert_back(m, before)
        m.run(["iw", "dev", "wlan0", "set", "4addr", "on"])
        allowed = m.kvmnet("bridge", "create", "br7", "--port", "wlan0", "--yes", check=False)
        assert allowed.status == 0, allowed
        assert m.links()["wlan0"]["master"] == "br7"
        for name, text in WIRELESS_BRIDGE.items():
            m.write(f"/etc/systemd/network/{name}", text)
        m.run(["networkctl", "reload"])
        scenarios.wait_for("br5", lambda: "br5" in m.links())
        assert names(diagnose(m)) == [("wireless-uplink", "bridge br5")]
