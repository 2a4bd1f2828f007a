"""Addresses that are lent to the loopback, and taken back."""

import json

from kvmnet.formats import lent

SHOWN = json.dumps(
    [
        {"ifname": "br0", "addr_info": [
            {"local": "10.77.0.20", "prefixlen": 24, "scope": "global"},
            {"local": "10.77.0.21", "prefixlen": 24, "scope": "global", "tentative": True},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
            {"local": "fd77::20", "prefixlen": 64, "scope": "global"},
        ]},
        {"ifname": "lo", "addr_info": [
            {"local": "127.0.0.1", "prefixlen": 8, "scope": "host"},
        ]},
        {"ifname": "bare"},
    ]
)  # fmt: skip


def test_what_is_lent_is_what_is_taken_back() -> None:
    assert lent.addresses(SHOWN, "lo") == ("127.0.0.1",)
    assert lent.addresses(SHOWN, "bare") == lent.addresses("", "br0") == ()
    names = lent.addresses(SHOWN, "br0")
    assert names == ("10.77.0.20", "fd77::20")
    assert lent.lend(names) == (
        "address add 10.77.0.20/32 dev lo",
        "address add fd77::20/128 dev lo nodad",
    )
    assert lent.back(names) == (
        "address delete 10.77.0.20/32 dev lo",
        "address delete fd77::20/128 dev lo",
    )
    assert lent.back(()) == ()


ROUTES = json.dumps(
    [
        {"dev": "br0", "dst": "default", "gateway": "10.77.0.1", "prefsrc": "10.77.0.20"},
        {"dev": "br0", "dst": "10.77.0.0/24", "prefsrc": "10.77.0.20", "metric": 425},
        {"dev": "br0", "dst": "fe80::/64"},
        {"dev": "br0", "dst": "10.9.0.0/16", "type": "blackhole"},
        {"dev": "eth9", "dst": "10.8.0.0/16"},
    ]
)


def test_routes_come_last_while_others_are_there_and_before_those_once_they_lead_nowhere() -> None:
    assert lent.routes(ROUTES, "br0", "enp0s3", 4) == (
        "route add 0.0.0.0/0 via 10.77.0.1 dev enp0s3 proto 159 metric 4000000 src 10.77.0.20 "
        "onlink",
        "route add 10.77.0.0/24 dev enp0s3 proto 159 metric 4000001 src 10.77.0.20",
    )
    assert lent.routes_before(ROUTES, "br0", "enp0s3", 4) == (
        "route add 0.0.0.0/0 via 10.77.0.1 dev enp0s3 proto 159 metric 4000000 src 10.77.0.20 "
        "onlink",
        "route add 10.77.0.0/24 dev enp0s3 proto 159 metric 424 src 10.77.0.20",
    )
