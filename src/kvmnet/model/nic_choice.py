"""Which of a guest's NICs a user means, and what is to become of their MAC addresses."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.values import Mac, parse_mac

_NUMBER = re.compile(r"[0-9]{1,4}")


class AllNics(Struct, frozen=True, kw_only=True, tag="all"):
    """Every NIC of the guest."""


class NumberedNic(Struct, frozen=True, kw_only=True, tag="number"):
    """The NIC at that place, counted from 1 in the order of the definition."""

    number: int


class NicWithMac(Struct, frozen=True, kw_only=True, tag="mac"):
    """The NIC with that address."""

    mac: Mac


NicChoice = AllNics | NumberedNic | NicWithMac


class MacWish(Struct, frozen=True, kw_only=True):
    """The value of `--mac`."""

    kind: Literal["keep", "new", "given"] = "keep"
    mac: Mac | None = None
    """With kind `given`."""


def parse_nic_choice(text: str) -> NicChoice:
    """The value of `--nic`: a MAC address, a number from 1, or `all`. Raises `InvalidInput`."""
    if text == "all":
        return AllNics()
    if _NUMBER.fullmatch(text):
        if int(text) == 0:
            raise InvalidInput("NICs are counted from 1", hint="--nic 1")
        return NumberedNic(number=int(text))
    if ":" not in text and "-" not in text:
        raise InvalidInput(
            f"{text[:40]!a} names no NIC of a guest",
            why="a MAC address, a number counted from 1, or `all` is expected",
        )
    return NicWithMac(mac=parse_mac(text))


def parse_mac_wish(text: str) -> MacWish:
    """The value of `--mac`: `keep`, `new` or an address. Raises `InvalidInput`."""
    if text == "keep":
        return MacWish()
    if text == "new":
        return MacWish(kind="new")
    if ":" not in text and "-" not in text:
        raise InvalidInput(f"--mac takes keep, new or an address, and not {text[:40]!a}")
    mac = parse_mac(text)
    if mac == "00:00:00:00:00:00":
        raise InvalidInput(f"{mac} can not be a NIC's address", why="it stands for none")
    return MacWish(kind="given", mac=mac)
