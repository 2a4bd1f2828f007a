"""Which NICs are meant, and which addresses they get."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmnet.core.nic_choice import choose, listed, new_addresses
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.model.nic_choice import AllNics, MacWish, parse_mac_wish, parse_nic_choice
from kvmnet.model.target import parse_target
from kvmnet.model.values import Mac
from kvmnet.model.virt import GuestNic

ONE, TWO = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")
NICS = (
    GuestNic(mac=ONE, type="network", source="default"),
    GuestNic(mac=TWO, type="bridge", source="br0"),
    GuestNic(mac=None, type="network", source="default"),
)


def test_the_only_nic_needs_no_name() -> None:
    assert choose(NICS[:1], None, None, "guest web") == (1,)


def test_of_several_one_has_to_be_named() -> None:
    with pytest.raises(InvalidInput, match="which NIC of guest web is meant") as error:
        choose(NICS, None, None, "guest web")
    assert error.value.why == f"it has {listed(NICS)}"
    assert "NIC 3: no address on network:default" in error.value.why


@pytest.mark.parametrize(
    ("nic", "origin", "numbers"),
    [
        ("2", None, (2,)),
        (TWO, None, (2,)),
        ("all", None, (1, 2, 3)),
        (None, "network:default", (1, 3)),
        ("all", "network:default", (1, 3)),
        ("3", "network:default", (3,)),
        (None, "bridge:br0", (2,)),
    ],
)
def test_named(nic: str | None, origin: str | None, numbers: tuple[int, ...]) -> None:
    wanted = None if nic is None else parse_nic_choice(nic)
    on = None if origin is None else parse_target(origin)
    assert choose(NICS, wanted, on, "guest web") == numbers


@pytest.mark.parametrize(
    ("nic", "origin", "said"),
    [
        ("4", None, "guest web has no NIC 4"),
        ("52:54:00:00:00:09", None, "has no NIC with the address 52:54:00:00:00:09"),
        (None, "network:lan", "no NIC of guest web is on network:lan"),
        ("2", "network:default", "NIC 2 of guest web is not on network:default"),
    ],
)
def test_not_there(nic: str | None, origin: str | None, said: str) -> None:
    wanted = None if nic is None else parse_nic_choice(nic)
    on = None if origin is None else parse_target(origin)
    with pytest.raises(NotFound, match=said):
        choose(NICS, wanted, on, "guest web")


def test_a_guest_without_nics() -> None:
    with pytest.raises(NotFound, match="guest web has no NIC"):
        choose((), AllNics(), None, "guest web")


def test_an_address_that_two_nics_have_names_neither() -> None:
    twins = (NICS[0], NICS[0])
    with pytest.raises(InvalidInput, match="2 NICs of guest web have the address"):
        choose(twins, parse_nic_choice(ONE), None, "guest web")


def bytes_of(*values: int) -> Callable[[int], bytes]:
    left = list(values)
    return lambda count: bytes(left.pop(0) for _ in range(count))


def test_new_addresses_are_not_those_of_the_other_nics() -> None:
    drawn = bytes_of(0, 0, 2, 0, 0, 9, 0, 0, 9, 0, 0, 8)
    found = new_addresses(NICS, (1, 3), MacWish(kind="new"), drawn)
    assert found == {1: "52:54:00:00:00:09", 3: "52:54:00:00:00:08"}


def test_a_given_address_is_for_one_nic_and_new() -> None:
    def never(_: int) -> bytes:
        raise AssertionError("drawn")

    wish = parse_mac_wish("52:54:00:00:00:07")
    assert new_addresses(NICS, (3,), wish, never) == {3: "52:54:00:00:00:07"}
    assert new_addresses(NICS, (1,), parse_mac_wish(ONE), never) == {}
    assert new_addresses(NICS, (1, 2), MacWish(), never) == {}
    with pytest.raises(InvalidInput, match="2 NICs"):
        new_addresses(NICS, (1, 3), wish, never)
    with pytest.raises(Refused, match="the address of NIC 2 of the same guest"):
        new_addresses(NICS, (3,), parse_mac_wish(TWO), never)
