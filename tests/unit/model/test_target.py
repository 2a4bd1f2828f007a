"""`--to`, `--nic` and `--mac`: what is understood, and what is said otherwise."""

from __future__ import annotations

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.model.nic_choice import (
    AllNics,
    MacWish,
    NicWithMac,
    NumberedNic,
    parse_mac_wish,
    parse_nic_choice,
)
from kvmnet.model.target import (
    BridgeTarget,
    DirectTarget,
    NetworkTarget,
    UserTarget,
    is_on,
    parse_target,
    place,
    target_of,
)
from kvmnet.model.values import Mac
from kvmnet.model.virt import GuestNic


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("network:default", NetworkTarget(name="default")),
        ("network:a:b", NetworkTarget(name="a:b")),
        ("bridge:br-lan.7", BridgeTarget(name="br-lan.7")),
        ("direct:eth0", DirectTarget(nic="eth0")),
        ("direct:eth0.2:vepa", DirectTarget(nic="eth0.2", mode="vepa")),
        ("user", UserTarget()),
        ("user:passt", UserTarget(backend="passt")),
        ("user:slirp", UserTarget(backend="slirp")),
    ],
)
def test_targets_are_read_and_written_alike(text: str, target: object) -> None:
    assert parse_target(text) == target
    assert str(target) == text


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "nothing that a NIC can be put on", "bridge:br0"),
        ("br0", "nothing that a NIC can be put on", "bridge:br0"),
        ("nat", "nothing that a NIC can be put on", "network:default"),
        ("macvtap:eth0", "nothing that a NIC can be put on", "direct:NIC"),
        ("Bridge:br0", "nothing that a NIC can be put on", ""),
        ("bridge:", "does not say which bridge", "bridge:br0"),
        ("bridge", "does not say which bridge", "bridge:br0"),
        ("network:", "does not say which network", "network:default"),
        ("network:a/b", "can not be the name of a network", ""),
        ("network:a\nb", "can not be the name of a network", ""),
        ("bridge:a b", "can not be the name of a bridge or NIC", ""),
        ("bridge:name-that-is-too-long", "can not be the name of a bridge or NIC", ""),
        ("bridge:a'b", "can not stand in a guest's definition", ""),
        ("direct:", "does not say which host's NIC", "direct:eth0"),
        ("direct:eth0:nat", "no mode of a macvtap", "direct:eth0:bridge"),
        ("direct:eth0:", "no mode of a macvtap", "direct:eth0:bridge"),
        ("user:tap", "no backend of a user's network", "user:passt"),
        ("user:", "no backend of a user's network", "user:passt"),
        ("x" * 5000, "nothing that a NIC can be put on", ""),
    ],
)
def test_other_words_are_no_targets(text: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_target(text)
    assert said in error.value.what
    assert hint in error.value.hint
    assert len(error.value.what) < 200


def test_where_a_nic_is() -> None:
    def nic(kind: str, source: str | None = None, mode: str | None = None) -> GuestNic:
        return GuestNic(mac=None, type=kind, source=source, source_mode=mode)

    assert target_of(nic("direct", "eth0")) == DirectTarget(nic="eth0", mode="vepa")
    assert target_of(nic("bridge")) is None
    assert target_of(nic("hostdev")) is None
    assert is_on(nic("direct", "eth0", "private"), parse_target("direct:eth0"))
    assert not is_on(nic("direct", "eth0", "private"), parse_target("direct:eth0:bridge"))
    assert is_on(nic("user"), parse_target("user")) and is_on(nic("user"), UserTarget())
    assert not is_on(nic("user"), parse_target("user:passt"))
    assert not is_on(nic("bridge", "br1"), parse_target("bridge:br0"))
    assert place(nic("mcast", "230.0.0.1:5558")) == "mcast 230.0.0.1:5558"
    assert place(nic("null")) == "null"


def test_which_nic() -> None:
    assert parse_nic_choice("all") == AllNics()
    assert parse_nic_choice("2") == NumberedNic(number=2)
    assert parse_nic_choice("52-54-00-AB-CD-EF") == NicWithMac(mac=Mac("52:54:00:ab:cd:ef"))
    for text, said in (
        ("0", "counted from 1"), ("-1", "is not a MAC"), ("eth0", "names no NIC"),
        ("", "names no NIC"), ("12345", "names no NIC"), ("٢", "names no NIC"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=said):
            parse_nic_choice(text)


def test_which_address() -> None:
    assert parse_mac_wish("keep") == MacWish()
    assert parse_mac_wish("new").kind == "new"
    assert parse_mac_wish("52:54:00:00:00:0A") == MacWish(
        kind="given", mac=Mac("52:54:00:00:00:0a")
    )
    for text in ("", "random", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00"):
        with pytest.raises(InvalidInput):
            parse_mac_wish(text)
