"""A port that was taken out of its bridge comes back with the VLANs and flags that it had."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machines import lan, scenarios
from machines.conftest import Machines
from machines.machine import Machine

CREATE = ("bridge", "create", "br0", "--vlan-filtering", "--yes", "--port")
DELETE = ("bridge", "delete", "br0", "--yes")
UNMANAGED = "[Match]\nName=plug far br1\n[Link]\nUnmanaged=yes\n"
SET = """
bridge vlan add dev {port} vid 100-199
bridge vlan add dev {port} vid 300 untagged
bridge vlan add dev {bridge} vid 150 self
ip link set {port} type bridge_slave mcast_flood off bcast_flood off priority 7 cost 55 guard on
"""
SECOND = """
ip link add plug type veth peer name far
ip link set far up
ip link add br1 type bridge vlan_default_pvid 7
ip link set br1 type bridge vlan_filtering 1
ip link set plug master br1 up
ip link set br1 up
bridge vlan add dev plug vid 20 pvid untagged
bridge vlan del dev plug vid 7
bridge vlan del dev br1 vid 7 self
bridge vlan add dev br1 vid 21 pvid untagged self
ip link set plug type bridge_slave isolated on learning off hairpin on neigh_suppress on
"""
"""Its default VLAN is another one, and neither it nor its port is in it."""
PASSING = ("id", "no", "state", "designated", "bridge_id", "root_id", "_timer", "topology_change")


def picture(m: Machine, bridge: str) -> Any:
    """VLANs and flags of the bridge and its ports."""
    links = [x for x in m.json("ip", "-d", "-json", "link", "show")
             if bridge in (x["ifname"], x.get("master"))]  # fmt: skip
    return {
        "vlans": sorted(
            json.dumps(x) for x in m.json("bridge", "-json", "vlan", "show")
            if x["ifname"] in {y["ifname"] for y in links}
        ),
        "flags": {
            x["ifname"]: {
                k: v for k, v in x["linkinfo"].get("info_slave_data", {}).items()
                if not any(y in k if y.startswith("_") else k.startswith(y) for y in PASSING)
            }
            for x in links
        },
        "bridge": [
            x["linkinfo"]["info_data"][key] for x in links if x["ifname"] == bridge
            for key in ("vlan_filtering", "vlan_default_pvid")
        ],
    }  # fmt: skip


def undo_last(m: Machine) -> None:
    """An undo of an undo has to be named."""
    names = m.script("ls /var/lib/kvmnet/transactions").split()
    m.kvmnet("undo", max(names).removesuffix(".json"), "--yes")


@pytest.mark.parametrize("manager", ["networkd", "networkmanager"])
def test_the_undo_of_a_delete_brings_vlans_and_flags_back(machines: Machines, manager: str) -> None:
    """NetworkManager plugs the port in anew, and sets what its profile says."""
    with machines.vm(manager, "static") as m:
        m.kvmnet(*CREATE, m.uplink)
        m.script(SET.format(port=m.uplink, bridge="br0"))
        before = picture(m, "br0")
        assert len(before["vlans"]) == 2 and '"vlan": 199' in "".join(before["vlans"])

        m.kvmnet(*DELETE)
        assert "br0" not in m.links()
        undo_last(m)
        assert picture(m, "br0") == before

        for moment in ("step:3", "step:4"):  # while the links change, and after it
            done = m.kill_at(moment, ["kvmnet", *DELETE])
            assert done.stdout.startswith("killed"), done
            lan.wait_for(
                f"the end of {moment}",
                lambda: all(x.outcome != "open" for x in scenarios.history(m)), 60,
            )  # fmt: skip
            assert picture(m, "br0") == before, moment
            scenarios.assert_nothing_open(m)


def test_a_bridge_of_nobody_comes_back_too_and_a_port_of_it(machines: Machines) -> None:
    with machines.vm("networkd", "static") as m:
        m.write("/etc/systemd/network/05-plugged.network", UNMANAGED)
        m.script("networkctl reload")
        m.script(SECOND)
        before = picture(m, "br1")
        assert before["bridge"] == [1, 7]
        for words in (("delete", "br1"), ("remove-port", "br1", "plug")):
            done = m.kvmnet("bridge", *words, "--yes")
            assert "loses" not in done.stdout + done.stderr
            assert m.links()["plug"].get("master") is None
            undo_last(m)
            assert picture(m, "br1") == before, words
