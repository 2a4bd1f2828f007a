"""What only looks is told from what mends, in all that findings advise."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kvmnet.core.looking import only_looks, split

FINDINGS = Path(__file__).parents[1] / "findings"

LOOKS = [
    "bridge fdb show br br0 | grep 52:54:00:00:00:01",
    "bridge link show dev vnet0",
    "bridge link; bridge fdb show: is the destination plugged in, and its port forwarding?",
    "ethtool eth1",
    "firewall-cmd --get-active-zones; firewall-cmd --list-all-policies",
    "ip -br address",
    "ip -details link show dev eth1",
    "ip -s link",
    "ip neigh show 192.0.2.1; is it up, and in the same VLAN?",
    "ip neighbour show",
    "ip route get 192.0.2.1",
    "ip xfrm policy",
    "journalctl -u named.service -n 20",
    "kvmnet network list",
    "kvmnet probe bridge:br0 --evidence",
    "nft -a list chain inet filter forward",
    "nft list ruleset; iptables-legacy-save",
    "ss -ltn there: is the program running, on that address?",
    "sysctl net.ipv4.ip_forward",
    "tc -s qdisc",
    "tc filter show dev eth1 ingress",
    "tcpdump -ni br0 port 67",
    "ufw status",
    "virsh -c qemu:///system net-dumpxml default",
    "virsh list --all",
]
CHANGES = [
    "bridge link set dev eth1 isolated off",
    "bridge vlan add dev eth1 vid 30",
    "cat /dev/null > /etc/hosts",
    "ethtool -K eth1 lro off",
    "firewall-cmd --zone=libvirt --change-interface=virbr0",
    "ip -6 route replace default via fe80::1 dev br0",
    "ip address del 10.0.0.1/24 dev show",
    "ip link set vnet0 master virbr0",
    "ip route get 10.0.0.2; or sysctl -w net.ipv4.conf.eth0.rp_filter=2",
    "kvmnet network start list",
    "kvmnet up",
    "nft insert rule inet filter forward iifname list accept",
    "on the router: ip route add 192.168.122.0/24 via 192.168.77.10",
    "printf '%s\\n' 'allow br0' | tee -a /etc/qemu/bridge.conf",
    "sysctl -w net.ipv4.ip_forward=1",
    "systemctl restart libvirtd",
    "ufw allow in on virbr0; ufw status numbered",
    "virsh -c qemu:///system edit list",
    "virsh start list",
    "the guest's own words",
]


@pytest.mark.parametrize("line", LOOKS)
def test_it_only_looks(line: str) -> None:
    assert only_looks(line)


@pytest.mark.parametrize("line", CHANGES)
def test_it_may_change_something(line: str) -> None:
    assert not only_looks(line)


def test_what_only_looks_is_told_without_saying_so_twice() -> None:
    lines = ("look: ip link show br0", "find it: bridge fdb show br br0 | grep 52:54",
             "look at the guest's console", "ip link set br0 up")  # fmt: skip
    assert split(lines) == (
        ("ip link set br0 up",),
        ("ip link show br0", "bridge fdb show br br0 | grep 52:54", "at the guest's console"),
    )


def test_every_command_of_the_cases_that_shows_or_reads_is_told_as_looking() -> None:
    """The only ones there: a new one has to be decided here."""
    looks = {
        line
        for path in FINDINGS.glob("*/*/expected.json")
        for finding in msgspec.json.decode(path.read_bytes())
        for line in finding.get("fix", ())
        if only_looks(line)
    }
    assert looks == {
        "journalctl -u named.service -n 20", "kvmnet probe bridge:br0", "kvmnet probe guest:a",
    }  # fmt: skip
