"""Bridges on hosts with each manager, in containers: what becomes of files and of the network."""

from __future__ import annotations

import time

import pytest

from machines import scenarios
from machines.conftest import Machines
from machines.images import MANAGERS
from machines.machine import Machine
from machines.scenarios import CREATE

MOST_LOST = 1
"""Of some hundred packets, one every 10 ms. The managers' own ways lose 13 and more."""
STATIC_OR_DHCP = [(manager, ("static", "dhcp")[n % 2]) for n, manager in enumerate(MANAGERS)]
DHCP_OR_STATIC = [(manager, ("dhcp", "static")[n % 2]) for n, manager in enumerate(MANAGERS)]
"""Each manager once; together both kinds with each. Virtual machines go through all eight."""
UNITS = {
    "netplan": "systemd-networkd",
    "networkmanager": "NetworkManager",
    "networkd": "systemd-networkd",
    "ifupdown": "networking",
    "netplan-nm": "NetworkManager",
}


@pytest.mark.parametrize(("manager", "config"), [*STATIC_OR_DHCP, *((x, "dual") for x in MANAGERS)])
def test_a_bridge_is_made_survives_reboots_and_is_undone_to_the_last_byte(
    machines: Machines, manager: str, config: str
) -> None:
    with machines.container(manager, config) as m:
        before = scenarios.look(m)
        scenarios.assert_hardly_lost(
            lambda: scenarios.create(m), lambda: scenarios.undo(m, before), MOST_LOST
        )
        scenarios.assert_bridged(m, before)
        m.reboot()
        scenarios.assert_bridged(m, before)
        m.power_cut()
        scenarios.assert_bridged(m, before)
        scenarios.assert_hardly_lost(
            lambda: scenarios.undo(m, before), lambda: create_and_reboot(m), MOST_LOST
        )
        m.reboot()
        scenarios.assert_back(m, before)
        scenarios.assert_nothing_open(m)


def create_and_reboot(m: Machine) -> None:
    scenarios.create(m)
    m.reboot()


@pytest.mark.parametrize(("manager", "config"), DHCP_OR_STATIC)
def test_delete_gives_the_nic_everything_back(
    machines: Machines, manager: str, config: str
) -> None:
    with machines.container(manager, config) as m:
        before = scenarios.look(m)
        scenarios.create(m)
        scenarios.assert_hardly_lost(
            lambda: scenarios.delete(m, before), lambda: scenarios.create(m), MOST_LOST
        )


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_bridge_whose_gateway_does_not_answer_is_taken_back(
    machines: Machines, manager: str
) -> None:
    with machines.container(manager, "static") as m:
        scenarios.block_bridges(m)
        before = scenarios.look(m)
        with m.watched() as watch:
            done = m.kvmnet(*CREATE, m.uplink, check=False)
        assert done.status == 4, done
        scenarios.assert_back(m, before)
        assert watch.seen.talk.intact, watch.seen
        scenarios.assert_nothing_open(m)


@pytest.mark.parametrize("manager", ["netplan", "networkmanager", "networkd"])
def test_the_wrong_nic_does_not_take_the_lan_away(machines: Machines, manager: str) -> None:
    """The NIC's cable ends nowhere, and its new route would be preferred to the one that works."""
    with machines.container(manager, "dhcp", nics=2) as m:
        m.run(["ip", "link", "set", "enp0s4", "up"])
        before = scenarios.look(m)
        with m.watched() as watch:
            done = m.kvmnet(*CREATE, "enp0s4", "--address", "10.77.0.30/24", check=False)
        assert done.status == 3, done
        assert "enp0s3 has 10.77.0." in done.stderr, done
        scenarios.assert_back(m, before)
        assert watch.seen.talk.intact, watch.seen


def test_a_wrong_nic_where_no_server_answers_is_given_back(machines: Machines) -> None:
    with machines.container("networkd", "static", nics=2) as m:
        m.run(["ip", "link", "set", "enp0s4", "up"])
        before = scenarios.look(m)
        with m.watched() as watch:
            done = m.kvmnet(*CREATE, "enp0s4", "--address", "dhcp", check=False)
        assert done.status in {3, 4}, done
        scenarios.assert_back(m, before)
        assert watch.seen.talk.intact, watch.seen
        scenarios.assert_nothing_open(m)


KILLED = [
    *((*which, moment) for which in STATIC_OR_DHCP for moment in ("step:3", "step:5")),
    ("networkd", "dhcp", "link:br0"),
    ("networkmanager", "static", "step:4"),
]
"""Steps 3 and 5 are the proofs: the kernel's links are the new ones, then the files as well."""


@pytest.mark.parametrize(("manager", "config", "moment"), KILLED)
def test_killed_it_is_put_back_from_outside(
    machines: Machines, manager: str, config: str, moment: str
) -> None:
    with machines.container(manager, config) as m:
        before = scenarios.look(m)
        done = m.kill_at(moment, ["kvmnet", *CREATE, m.uplink])
        assert done.stdout.startswith("killed"), done
        scenarios.assert_back(m, before, scenarios.BACK_S)
        scenarios.assert_nothing_open(m)


@pytest.mark.parametrize(("manager", "config"), DHCP_OR_STATIC)
def test_rebooted_half_way_it_comes_up_as_it_was(
    machines: Machines, manager: str, config: str
) -> None:
    """Files and links are the new ones already, and nobody has confirmed."""
    with machines.container(manager, config) as m:
        before = scenarios.look(m)
        scenarios.begin_unconfirmed(m, 120)
        assert m.etc() != before.etc
        m.power_cut()
        scenarios.assert_back(m, before)
        scenarios.assert_nothing_open(m)


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_manager_restarts_in_the_middle_and_nobody_confirms(
    machines: Machines, manager: str
) -> None:
    with machines.container(manager, "static") as m:
        before = scenarios.look(m)
        job = scenarios.begin_unconfirmed(m, 6)
        if manager != "ifupdown":  # it has no daemon: restarting it would take the network down
            m.run(["systemctl", "restart", UNITS[manager]])
        assert job.wait().status == 4
        scenarios.assert_back(m, before, scenarios.BACK_S)
        scenarios.assert_nothing_open(m)


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_manager_restarts_after_it_and_the_bridge_stays(
    machines: Machines, manager: str
) -> None:
    with machines.container(manager, "dhcp") as m:
        before = scenarios.look(m)
        scenarios.create(m)
        with m.watched() as watch:
            m.run(["systemctl", "restart", UNITS[manager]])
            time.sleep(3)
        scenarios.note(m, "restarted", watch.seen)
        scenarios.assert_bridged(m, before)
        assert watch.seen.talk.intact, watch.seen
