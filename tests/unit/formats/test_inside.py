"""What Linux says inside a guest, and what iproute2 says about a port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats import inside, ports
from kvmnet.formats.inside import InsideRoute
from kvmnet.formats.ports import Counters, PortVlan
from kvmnet.model.values import Ip

ROUTES4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0147000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0047000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t50\t00000080\t0\t0\t0
"""
ZERO = "0" * 32
ROUTES6 = f"""fd070000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 0 00000001 eth0
{ZERO} 00 {ZERO} 00 fe80000000000000be534dfffe757826 00000400 00000001 00000000 00450003     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""


def test_default_routes() -> None:
    assert inside.default_routes4(ROUTES4) == (
        InsideRoute(nic="eth0", gateway=Ip("10.0.71.1"), metric=100),
    )
    assert inside.default_routes6(ROUTES6) == (
        InsideRoute(nic="eth0", gateway=Ip("fe80::be53:4dff:fe75:7826"), metric=1024),
    )


def test_routes_of_a_newer_agent() -> None:
    raw = [
        {"iface": "eth0", "destination": "0.0.0.0", "metric": 100, "gateway": "10.0.71.1",
         "mask": "0.0.0.0", "version": 4},
        {"iface": "eth0", "destination": "10.0.71.0", "metric": 0, "gateway": "0.0.0.0",
         "mask": "255.255.255.0", "version": 4},
        {"iface": "eth0", "destination": "::", "metric": 1, "gateway": "fe80::1", "prefixlen": 0},
    ]  # fmt: skip
    gateways = [(x.nic, x.gateway) for x in inside.agent_routes(raw)]
    assert gateways == [("eth0", "10.0.71.1"), ("eth0", "fe80::1")]
    with pytest.raises(InvalidInput):
        inside.agent_routes({"iface": 3})


def test_dns_servers() -> None:
    text = "search x\nnameserver 10.0.71.1\nnameserver fe80::1%eth0\nnameserver $(reboot)\n"
    assert inside.dns_servers(text) == ("10.0.71.1", "fe80::1")
    assert inside.dns_servers("nameserver 0.0.0.0\nnameserver\n") == ()


@given(st.text(max_size=300))
def test_hostile_texts_never_crash(text: str) -> None:
    inside.default_routes4("head\n" + text)
    inside.default_routes6(text)
    inside.dns_servers(text)


def test_ports() -> None:
    text = '[{"ifname":"vnet0","stats64":{"rx":{"bytes":9,"packets":7},"tx":{"packets":8}}}]'
    assert ports.counters(text) == Counters(received=7, sent=8)
    assert ports.counters("") is None
    text = ('[{"ifname":"vnet0","vlans":[{"vlan":10,"flags":["PVID","Egress Untagged"]},'
            '{"vlan":20,"vlanEnd":29}]}]')  # fmt: skip
    assert ports.vlans(text) == (
        PortVlan(vid=10, end=10, pvid=True, untagged=True), PortVlan(vid=20, end=29)
    )  # fmt: skip
    with pytest.raises(InvalidInput):
        ports.vlans("{")
