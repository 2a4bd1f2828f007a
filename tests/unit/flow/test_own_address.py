"""Which of its own addresses tells a host what a LAN's subnet is."""

from __future__ import annotations

import msgspec

from kvmnet.flow.trace_origin import own_address
from kvmnet.model.host import Address
from kvmnet.model.state import State

_LONE = {"link": "br0", "family": 6, "ip": "fd77::1c05", "prefix_len": 128, "scope": "global"}
_WIDE = {**_LONE, "ip": "fd77::20", "prefix_len": 64}
_LINK_LOCAL = {**_LONE, "ip": "fe80::1", "prefix_len": 64, "scope": "link"}


def own(addresses: list[dict[str, object]], *destinations: str) -> Address | None:
    routes = [{"family": 6, "destination": x, "link": "br0"} for x in destinations]
    data = {"taken_at": 0, "hostname": "h", "addresses": addresses, "routes": routes}
    return own_address(msgspec.convert(data, State), "br0", 6)


def test_an_address_with_a_subnet_comes_before_one_of_dhcpv6() -> None:
    found = own([_LINK_LOCAL, _LONE, _WIDE])
    assert found is not None and (found.ip, found.prefix_len) == ("fd77::20", 64)


def test_where_there_is_only_that_of_dhcpv6_the_router_told_the_subnet() -> None:
    found = own([_LONE], "::/0", "fd77::/64", "fd77::1c05/128", "fd99::/48")
    assert found is not None and (found.ip, found.prefix_len) == ("fd77::1c05", 64)


def test_an_address_alone_stays_alone() -> None:
    found = own([_LONE], "::/0")
    assert found is not None and found.prefix_len == 128
    assert own([_LINK_LOCAL]) is None
