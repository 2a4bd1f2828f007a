"""Bridges on hosts with firewalld and ufw, the real ones: said beforehand, mended as a step."""

from __future__ import annotations

from machines import scenarios
from machines.conftest import Machines
from machines.machine import Machine
from machines.scenarios import CREATE

WALLS = ("firewalld", "ufw")
BRIDGED = "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"
"""As Docker has it: frames on bridges pass the firewall."""


def _frames_pass(m: Machine) -> bool:
    """Whether a machine on the bridge, as a guest would be, reaches the LAN's router."""
    done = m.run(
        ["sh", "-euc",
         "ip netns add guest; ip link add tap0 type veth peer name eth0 netns guest; "
         "ip link set tap0 master br0 up; ip -n guest link set eth0 up; "
         "ip -n guest address add 10.77.0.99/24 dev eth0; sleep 1; "
         "ip netns exec guest ping -c 3 -i 0.3 -W 2 10.77.0.1 || s=1; "
         "ip link del tap0; ip netns del guest; exit ${s:-0}"],
        check=False,
    )  # fmt: skip
    return done.status == 0


def test_firewalld_would_reject_guests_frames_and_gets_an_opening(machines: Machines) -> None:
    with machines.container("networkd", "static", more=WALLS) as m:
        m.script(f"{BRIDGED}; systemctl start firewalld")
        m.script("firewall-cmd -q --permanent --add-port=7777/tcp; firewall-cmd --reload")
        told = m.kvmnet("bridge", "create", "br0", "--port", m.uplink, "--dry-run").stdout
        assert "firewalld" in told and "guests' frames on br0" in told, told
        assert "firewall-cmd --permanent" in told, told
        before = scenarios.look(m)
        scenarios.assert_hardly_lost(
            lambda: scenarios.create(m), lambda: scenarios.undo(m, before), 1
        )
        assert _frames_pass(m)
        m.script(  # as it is told how to keep it
            "firewall-cmd --permanent --add-interface=br0; firewall-cmd --permanent --add-forward; "
            "firewall-cmd --reload"
        )
        assert "kvmnet" not in m.script("nft list ruleset")
        assert _frames_pass(m)
        m.kvmnet("bridge", "delete", "br0", "--yes")


def test_without_its_opening_firewalld_does_reject_them(machines: Machines) -> None:
    """The other tests show something only because of this."""
    with machines.container("networkd", "static", more=WALLS) as m:
        scenarios.create(m)
        m.script(f"{BRIDGED}; systemctl start firewalld")
        assert not _frames_pass(m)


def test_a_zone_of_the_nic_alone_is_said_before_the_host_is_cut_off(machines: Machines) -> None:
    with machines.container("networkd", "static", more=WALLS) as m:
        m.script(
            "systemctl start firewalld; firewall-cmd -q --set-default-zone=drop; "
            f"firewall-cmd -q --zone=trusted --change-interface={m.uplink}"
        )
        before = scenarios.look(m)
        done = m.kvmnet(*CREATE, m.uplink, check=False)
        assert done.status == 3, done
        assert "firewall" in done.stderr and m.uplink in done.stderr, done
        scenarios.assert_back(m, before)


def test_ufw_would_drop_guests_frames_and_gets_an_opening(machines: Machines) -> None:
    with machines.container("networkd", "static", more=WALLS) as m:
        m.script(f"{BRIDGED}; ufw allow 7777/tcp; ufw --force enable")
        told = m.kvmnet("bridge", "create", "br0", "--port", m.uplink, "--dry-run").stdout
        assert "ufw route allow in on br0 out on br0" in told, told
        before = scenarios.look(m)
        scenarios.assert_hardly_lost(
            lambda: scenarios.create(m), lambda: scenarios.undo(m, before), 1
        )
        assert _frames_pass(m)
        m.kvmnet("undo", "--yes")
        assert "kvmnet" not in m.script("iptables-save; ip6tables-save")
