"""Whether networkd has done all that is in its power, by what it says of a link itself."""

from __future__ import annotations

import json

from kvmnet.formats.networkd import is_in_place

UNIT = "/etc/systemd/network/10-br0.network"
ASKED = """[Match]
Name=br0
[Network]
Address=10.77.0.20/24
[Address]
Address=10.77.0.21/24
[Route]
Gateway=10.77.0.1
"""
ONE = {"ConfigSource": "static", "ConfigState": "configured"}
AGAIN = {"ConfigSource": "static", "ConfigState": "configuring,configured"}
COMING = {"ConfigSource": "static", "ConfigState": "requesting"}
GOING = {"ConfigSource": "static", "ConfigState": "configured,removing"}
FOREIGN = {"ConfigSource": "foreign", "ConfigState": "configured"}


def told(
    addresses: list[dict[str, str]],
    routes: list[dict[str, str]],
    state: str = "configuring",
    unit: str = UNIT,
) -> str:
    return json.dumps(
        {"Name": "br0", "AdministrativeState": state, "NetworkFile": unit, "Addresses": addresses,
         "Routes": routes, "Flags": 69699}
    )  # fmt: skip


def test_all_that_is_asked_for_is_there() -> None:
    assert is_in_place(told([ONE, AGAIN, FOREIGN], [FOREIGN, AGAIN]), UNIT, ASKED)


def test_an_address_is_still_to_come() -> None:
    assert not is_in_place(told([ONE, COMING], [ONE]), UNIT, ASKED)
    assert not is_in_place(told([ONE], [ONE]), UNIT, ASKED)


def test_a_route_is_still_to_come() -> None:
    assert not is_in_place(told([ONE, ONE], [FOREIGN]), UNIT, ASKED)
    assert not is_in_place(told([ONE, ONE], [COMING]), UNIT, ASKED)


def test_something_is_about_to_go() -> None:
    assert not is_in_place(told([ONE, ONE], [GOING]), UNIT, ASKED)


def test_the_files_from_before_are_still_in_force() -> None:
    assert not is_in_place(told([ONE, ONE], [ONE], unit="/etc/other.network"), UNIT, ASKED)
    assert not is_in_place(told([ONE, ONE], [ONE], state="pending"), UNIT, ASKED)


def test_where_addresses_are_given_nobody_knows() -> None:
    given = "[Network]\nDHCP=yes\n"
    assert not is_in_place(told([FOREIGN], [FOREIGN]), UNIT, given)


def test_an_older_or_stranger_networkctl_tells_nothing() -> None:
    assert not is_in_place("", UNIT, ASKED)
    assert not is_in_place('{"Addresses": 7}', UNIT, ASKED)
