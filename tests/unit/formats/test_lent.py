"""Addresses that were lent to the loopback and forgotten there."""

import json

from kvmnet.formats import lent

LINKS = json.dumps(
    [
        {"ifname": "lo", "addr_info": [
            {"local": "127.0.0.1", "prefixlen": 8, "scope": "host"},
            {"local": "10.77.0.20", "prefixlen": 32, "scope": "global"},
            {"local": "10.77.0.21", "prefixlen": 32, "scope": "global"},
            {"local": "198.51.100.7", "prefixlen": 32, "scope": "global"},
        ]},
        {"ifname": "br0", "addr_info": [
            {"local": "10.77.0.20", "prefixlen": 24, "scope": "global"},
        ]},
    ]
)  # fmt: skip
MARKED = json.dumps(
    [{"dst": "10.77.0.0/24", "dev": "br0", "protocol": "159", "prefsrc": "10.77.0.21"}]
)


def test_only_what_was_lent_is_taken_from_the_loopback() -> None:
    assert lent.forgotten(LINKS, MARKED) == (
        "address delete 10.77.0.20/32 dev lo",
        "address delete 10.77.0.21/32 dev lo",
    )


def test_an_administrators_own_address_stays() -> None:
    assert not any("198.51.100.7" in x for x in lent.forgotten(LINKS, MARKED))
    assert lent.forgotten("[]", "[]") == ()
